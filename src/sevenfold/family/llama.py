"""Llama and its relatives (Mistral, Qwen 2 and 3, OLMo 2): causal decoders with rotary positions, RMS norm and SwiGLU.

    x <- x + attention(N(x));  x <- x + W (silu(G N(x)) * U N(x));  logits = V N(x)        OLMo 2: x <- x + N(attention(x)) …

Touvron 2023, arXiv:2302.13971; Llama 3, arXiv:2407.21783; Mistral (windows), arXiv:2310.06825; Qwen 2.5 (biases of q, k, v),
arXiv:2412.15115; Qwen 3 (query-key norm), arXiv:2505.09388; OLMo 2 (norm of outputs), arXiv:2501.00656. Weights:
huggingface.co/meta-llama, mistralai, Qwen, allenai. Objective: next_token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from sevenfold.family._decoder import Decoder, DecoderConfig, Wiring

Reach = Literal["full_attention", "sliding_attention"]

DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"architectures": ("LlamaForCausalLM",)},
    "mistral": {
        "architectures": ("MistralForCausalLM",),
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "qwen2": {
        "architectures": ("Qwen2ForCausalLM",),
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "max_position_embeddings": 32768,
    },
    "qwen3": {
        "architectures": ("Qwen3ForCausalLM",),
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "max_position_embeddings": 32768,
        "head_dim": 128,
    },
    "olmo2": {"architectures": ("Olmo2ForCausalLM",), "vocab_size": 50304, "rms_norm_eps": 1e-5},
}
"""model_type → what its config means where it says nothing, and differs from Llama."""
NO_WINDOW = {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 0, "layer_types": None}
FIXED: dict[str, dict[str, Any]] = {
    "llama": NO_WINDOW,
    "mistral": {
        "attention_bias": False,
        "mlp_bias": False,
        "use_sliding_window": True,
        "max_window_layers": 0,
        "layer_types": None,
    },
    "qwen2": {"attention_bias": False, "mlp_bias": False},
    "qwen3": {"mlp_bias": False},
    "olmo2": {"mlp_bias": False, **NO_WINDOW},
}
"""model_type → fields that its config does not have, and what they amount to."""
BLOCKS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"query_key_norm": True},
    "olmo2": {
        "query_key_norm": True,
        "norm_across": True,
        "output_norm": True,
        "norms": ("post_attention_layernorm", "post_feedforward_layernorm"),
    },
}
"""model_type → how its blocks differ from Llama's, whatever the config says."""


def _llama3(factor: float) -> dict[str, Any]:
    return {
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    }


SIZES: dict[str, dict[str, Any]] = {
    "llama3.2_1b": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        **_llama3(32.0),
    },
    "llama3.2_3b": {
        "vocab_size": 128256,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        **_llama3(32.0),
    },
    "llama3.1_8b": {
        "vocab_size": 128256,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        **_llama3(8.0),
    },
    "mistral_7b": {
        "model_type": "mistral",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    },
    "qwen2.5_0.5b": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "max_window_layers": 24,
        "tie_word_embeddings": True,
    },
    "qwen3_0.6b": {
        "model_type": "qwen3",
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "max_position_embeddings": 40960,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": True,
    },
    "olmo2_1b": {
        "model_type": "olmo2",
        "vocab_size": 100352,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 500000.0,
    },
    "olmo2_7b": {
        "model_type": "olmo2",
        "vocab_size": 100352,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 500000.0,
    },
}


class Llama(Decoder):
    class Config(DecoderConfig):
        model_type: Literal["llama", "mistral", "qwen2", "qwen3", "olmo2"] = "llama"
        """Which published config this is."""
        hidden_act: Literal["silu"] = "silu"
        """The gate's function."""
        mlp_bias: bool = False
        """Whether the feed-forward layers have biases."""
        use_sliding_window: bool = False
        """Whether tokens see only so far, in some blocks (Qwen)."""
        sliding_window: int | None = Field(4096, ge=1)
        """They see those less than this many places before them (Mistral: in all blocks; null for no window)."""
        max_window_layers: int = Field(28, ge=0)
        """Blocks from this one on have the window (Qwen)."""
        layer_types: tuple[Reach, ...] | None = None
        """Whether each block has the window, instead of max_window_layers (Qwen)."""

        @classmethod
        def defaults(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
            named = given.get("model_type", "llama")
            return DEFAULTS.get(named, {}) if isinstance(named, str) else {}

        def setting(self, name: str) -> Any:
            """What a field amounts to: its value, if such a config has it."""
            return FIXED[self.model_type].get(name, getattr(self, name))

        @property
        def wiring(self) -> Wiring:
            biased = self.setting("attention_bias")
            own: dict[str, Any] = {"qkv_bias": biased, "out_bias": biased, "feed_bias": self.setting("mlp_bias")}
            return Wiring(**{**own, **BLOCKS[self.model_type]}, windows=self.windows)

        @property
        def windows(self) -> tuple[int | None, ...]:
            """How far tokens see in each block."""
            window = self.setting("sliding_window") if self.setting("use_sliding_window") else None
            kinds = self.setting("layer_types")
            if kinds is None:
                first = self.setting("max_window_layers")
                return tuple(window if index >= first else None for index in range(self.num_hidden_layers))
            if len(kinds) != self.num_hidden_layers:
                raise ValueError(f"layer_types: {len(kinds)} of them, for {self.num_hidden_layers} blocks")
            if window is None and "sliding_attention" in kinds:
                raise ValueError("layer_types: 'sliding_attention' needs use_sliding_window and a sliding_window")
            return tuple(window if kind == "sliding_attention" else None for kind in kinds)

    sizes = SIZES

    def published(self) -> dict[str, Any]:
        lacks = FIXED[self.config.model_type]
        return {name: value for name, value in super().published().items() if name not in lacks}
