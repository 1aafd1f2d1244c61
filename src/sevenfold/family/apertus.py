"""Apertus: a causal decoder with rotary positions, query-key norm, and xIELU between two plain layers.

    x <- x + attention(N(x));  x <- x + W xielu(U N(x));  logits = V N(x)

Apertus 2025, arXiv:2509.14233. Weights: huggingface.co/swiss-ai/Apertus-8B-2509. Objective: next_token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from sevenfold.family import SAME, Op, constant
from sevenfold.family._decoder import Decoder, DecoderConfig, Wiring


class Apertus(Decoder):
    class Config(DecoderConfig):
        model_type: Literal["apertus"] = "apertus"
        """Which published config this is."""
        hidden_act: Literal["xielu"] = "xielu"
        """The nonlinearity."""
        mlp_bias: Literal[False] = False
        """The feed-forward layers have no biases."""
        hidden_dropout: Literal[0] = 0
        """No dropout of each part's output."""
        qk_norm: Literal[True] = True
        """Queries and keys are normed, head by head."""
        post_norm: Literal[False] = False
        """Norms stand before each part."""

        default_rope = {
            "rope_type": "llama3",
            "rope_theta": 12000000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        }

        @classmethod
        def defaults(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
            return {
                "architectures": ("ApertusForCausalLM",),
                "vocab_size": 131072,
                "intermediate_size": 14336,
                "max_position_embeddings": 65536,
                "rms_norm_eps": 1e-5,
            }

        @property
        def wiring(self) -> Wiring:
            return Wiring(
                qkv_bias=self.attention_bias,
                out_bias=self.attention_bias,
                query_key_norm=True,
                norms=("attention_layernorm", "feedforward_layernorm"),
                feed="xielu",
                up=("mlp.up_proj",),
                more=(
                    *((f"feed.{name}", f"mlp.act_fn.{name}", SAME) for name in ("alpha_p", "alpha_n")),
                    *(("", f"mlp.act_fn.{name}", _number(value)) for name, value in NUMBERS.items()),
                ),
            )

    sizes = {"8b": {"intermediate_size": 21504, "num_key_value_heads": 8}}


NUMBERS = {"beta": 0.5, "eps": -1e-6}
"""xIELU's fixed numbers, which published files hold in every block."""


def _number(value: float) -> Op:
    return constant(lambda: torch.tensor(value), tolerance=1e-8)
