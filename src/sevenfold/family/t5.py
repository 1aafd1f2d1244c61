"""T5: an encoder that reads and a decoder that writes, one bias of distances for all blocks of each, no scaling of scores.

    enc   x <- x + W_o softmax(Q K^T + B) V,  Q K V of RMS(x);         x <- x + W f(U RMS(x))
    dec   the same with a causal B, and between: x <- x + attention(RMS(x), enc);         logits = E RMS(x) / sqrt(d)

Raffel 2019, arXiv:1910.10683, sizes from section 3.7. f is relu; T5 v1.1, Flan-T5, UL2 and mT5 (arXiv:2010.11934) gate it,
and have a head of its own without the factor. Weights: huggingface.co/google-t5, google/t5-v1_1-base, google/flan-t5-base,
google/mt5-small. Objective: span_corruption of plain text; next_token on what is written, where there are pairs. Dropout
within the feed-forward part is not taken over.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Batch, Stream
from sevenfold.family import TRIED, Family, Rule, State, lead, repeat, stacked

FEED: dict[str, dict[str, Any]] = {
    "relu": {"kind": "relu"},
    "gated-gelu": {"kind": "geglu", "tanh": True},
    "gated-silu": {"kind": "swiglu"},
}
"""Published names of feed-forward parts → ours."""
ENCODER, BARE, WHOLE = "EncoderModel", "Model", "ForConditionalGeneration"
"""How the names of architectures end."""
LATER = {
    "small": {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6},
    "base": {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12},
    "large": {"d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_heads": 16},
    "xl": {"d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32},
    "xxl": {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64},
}
"""Sizes of T5 v1.1, Flan-T5 and mT5."""
LATEST: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


class T5(Family):
    class Config(Family.Config):
        model_type: Literal["t5", "mt5"] = "t5"
        """Which published config this is."""
        architectures: tuple[str, ...] | None = None
        """What there is of it: all (T5ForConditionalGeneration, the default), no head (T5Model), the encoder (T5EncoderModel)."""
        vocab_size: int = Field(32128, ge=64, le=1 << 22)
        """Ids."""
        d_model: int = Field(512, ge=1, le=1 << 16)
        """Width."""
        d_kv: int = Field(64, ge=1, le=1 << 16)
        """Width of one head."""
        d_ff: int = Field(2048, ge=1, le=1 << 20)
        """Inner width of the feed-forward part."""
        num_layers: int = Field(6, ge=1, le=4096)
        """Blocks of the encoder."""
        num_decoder_layers: int | None = Field(None, ge=1, le=4096)
        """Blocks of the decoder; by default as many."""
        num_heads: int = Field(8, ge=1, le=4096)
        """Heads."""
        relative_attention_num_buckets: int = Field(32, ge=4, le=1 << 16)
        """How many distances are told apart."""
        relative_attention_max_distance: int = Field(128, ge=3)
        """From this distance on, all are one."""
        dropout_rate: float = 0.1
        """Dropout of each part's output, of the embedded tokens and of attention weights."""
        layer_norm_epsilon: float = 1e-6
        """Added to the mean square."""
        feed_forward_proj: Literal["relu", "gated-gelu", "gated-silu"] = "relu"
        """The feed-forward part; GELU is in its tanh approximation."""
        tie_word_embeddings: bool = True
        """Whether the head is the embedding, with the factor 1/sqrt(d_model); later files of `transformers` say true always."""
        scale_decoder_outputs: bool | None = None
        """How these files say it; by default as tie_word_embeddings. In mT5 the head is its own whatever is said."""
        pad_token_id: int = Field(0, ge=0)
        """The id of padding."""
        decoder_start_token_id: int | None = Field(None, ge=0)
        """The id that what is written begins with; by default that of padding."""

    sizes = {
        "small": {},
        "base": {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
        "large": {"d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_heads": 16},
        "3b": {"d_model": 1024, "d_kv": 128, "d_ff": 16384, "num_layers": 24, "num_heads": 32},
        "11b": {"d_model": 1024, "d_kv": 128, "d_ff": 65536, "num_layers": 24, "num_heads": 128},
        **{f"v1_1_{size}": {**shape, **LATEST} for size, shape in LATER.items()},
        **{
            f"mt5_{size}": {**shape, **LATEST, "model_type": "mt5", "vocab_size": 250112}
            for size, shape in LATER.items()
        },
    }
    carried = [r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"]

    def __init__(self, config: Any):
        super().__init__(config)
        told = (config.architectures or (f"T5{WHOLE}",))[0].removeprefix("M").removeprefix("T5")
        if told not in (ENCODER, BARE, WHOLE):
            raise ConfigError(f"architectures: {config.architectures[0]!r} is none of T5{WHOLE}, T5{BARE}, T5{ENCODER}")
        self.writes, self.headed = told != ENCODER, told == WHOLE
        scaled = config.tie_word_embeddings if config.scale_decoder_outputs is None else config.scale_decoder_outputs
        self.tied = scaled and config.model_type == "t5"
        self.states = {"enc": "encoder_hidden_states", "dec": "decoder_hidden_states"}
        self.objective = {"kind": "span_corruption"}
        if not self.writes:
            self.states, self.objective = {"enc": "hidden_states"}, {"kind": "masked_token"}
        self.copies = {r"(en|de)coder\.embed_tokens\.weight": "shared.weight"}
        if self.tied:
            self.copies[r"lm_head\.weight"] = "shared.weight"

    def published(self) -> dict[str, Any]:
        return {name: value for name, value in super().published().items() if value is not None}

    def model(self) -> ModelConfig:
        c = self.config
        tokenizer = {"kind": "published", "size": c.vocab_size}
        streams: dict[str, Any] = {"source": {"kind": "text", "tokenizer": tokenizer}}
        trunks: dict[str, Any] = {"enc": {**self._trunk("source", True), "depth": c.num_layers}}
        heads: dict[str, Any] = {}
        if self.writes:
            begin = c.pad_token_id if c.decoder_start_token_id is None else c.decoder_start_token_id
            streams["target"] = {**streams["source"], "begin": begin, "table": "source"}
            deep = c.num_decoder_layers or c.num_layers
            trunks["dec"] = {**self._trunk("target", False), "depth": deep, "cross_attends": "enc"}
            trunks["dec"]["mask"] = {"causal": True}
            trunks["dec"]["block"]["cross"] = self._attention("cross")
        if self.headed:
            heads["target"] = {"trunk": "dec", "stream": "target", "projection": "linear"}
        if self.headed and self.tied:
            heads["target"] |= {"projection": "tied", "scale": c.d_model**-0.5}
        return part.decode(ModelConfig, {"streams": streams, "trunks": trunks, "heads": heads}, str(self.kind))

    def _attention(self, kind: str) -> dict[str, Any]:
        c = self.config
        return {"kind": kind, "heads": c.num_heads, "head_width": c.d_kv, "scale": 1.0, "dropout": c.dropout_rate}

    def _trunk(self, stream: str, bidirectional: bool) -> dict[str, Any]:
        """A trunk that reads a stream, without its depth and what only decoders have."""
        c = self.config
        position = {
            "kind": "relative_bias",
            "buckets": c.relative_attention_num_buckets,
            "most": c.relative_attention_max_distance,
            "bidirectional": bidirectional,
        }
        block = {
            "mixer": self._attention("attention"),
            "nonlinearity": {**FEED[c.feed_forward_proj], "inner": c.d_ff},
            "norm": {"kind": "rms", "eps": c.layer_norm_epsilon},
            "dropout": c.dropout_rate,
        }
        return {"inputs": [stream], "width": c.d_model, "position": position, "block": block, "dropout": c.dropout_rate}

    def rules(self) -> list[Rule]:
        c = self.config
        rules = [Rule("trunks.enc.embeds.source.weight", "shared.weight"), *self._stack("enc", "encoder", c.num_layers)]
        if self.writes:
            rules += self._stack("dec", "decoder", c.num_decoder_layers or c.num_layers)
        if self.headed and not self.tied:
            rules.append(Rule("heads.target.projection.weight", "lm_head.weight"))
        return rules

    def _stack(self, trunk: str, name: str, depth: int) -> list[Rule]:
        """The rules of one trunk."""
        ours, theirs, crosses = f"trunks.{trunk}.blocks.{{i}}", f"{name}.block.{{i}}.layer", trunk == "dec"
        own, feed = f"{theirs}.0.SelfAttention", f"{theirs}.{1 + crosses}"
        block = [
            Rule(f"{ours}.norms.0.weight", f"{theirs}.0.layer_norm.weight"),
            Rule(f"{ours}.mixer.qkv.weight", tuple(f"{own}.{part}.weight" for part in "qkv"), stacked(3)),
            Rule(f"{ours}.mixer.out.weight", f"{own}.o.weight"),
            Rule(f"{ours}.norms.{1 + crosses}.weight", f"{feed}.layer_norm.weight"),
            Rule(f"{ours}.feed.out.weight", f"{feed}.DenseReluDense.wo.weight"),
        ]
        if FEED[self.config.feed_forward_proj]["kind"] == "relu":
            block.append(Rule(f"{ours}.feed.up.weight", f"{feed}.DenseReluDense.wi.weight"))
        else:
            both = tuple(f"{feed}.DenseReluDense.wi_{part}.weight" for part in (0, 1))
            block.append(Rule(f"{ours}.feed.up.weight", both, stacked(2)))
        if crosses:
            other = f"{theirs}.1.EncDecAttention"
            block += [
                Rule(f"{ours}.norms.1.weight", f"{theirs}.1.layer_norm.weight"),
                Rule(f"{ours}.cross.query.weight", f"{other}.q.weight"),
                Rule(f"{ours}.cross.key_value.weight", (f"{other}.k.weight", f"{other}.v.weight"), stacked(2)),
                Rule(f"{ours}.cross.out.weight", f"{other}.o.weight"),
            ]
        bias = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        return [
            Rule(f"trunks.{trunk}.position.tables", bias, lead(-1)),
            *repeat(depth, block),
            Rule(f"trunks.{trunk}.norm.weight", f"{name}.final_layer_norm.weight"),
        ]

    def from_published(self, state: State) -> dict[str, Tensor]:
        """A head of its own begins as the embedding where a file holds none: `transformers` ties what was made anew."""
        if self.headed and not self.tied and "lm_head.weight" not in state and "shared.weight" in state:
            state = {**state, "lm_head.weight": state["shared.weight"].clone()}
        return super().from_published(state)

    def trial(self, model: Model) -> tuple[Batch, dict[str, Any]]:
        draw = torch.Generator().manual_seed(0)
        batch: Batch = {}
        given: dict[str, Any] = {"use_cache": False} if self.writes else {}
        for stream, name in (("source", "input_ids"), ("target", "decoder_input_ids")):
            if stream in model.modalities:
                ids = torch.randint(4, self.config.vocab_size, (2, TRIED), generator=draw)
                batch[stream], given[name] = Stream(ids, torch.arange(TRIED).expand(2, -1)[..., None]), ids
        return batch, given
