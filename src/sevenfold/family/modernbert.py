"""ModernBERT: an encoder whose blocks look at everything or near by in turn, each with a rotary base of its own.

    x <- LN(E[id]);  x <- x + attention_l(LN_l(x));  x <- x + (gelu(x' G) * x' U) D, x' = LN(x);  logits = E LN(gelu(V x)) + b
    attention_l: everything, base 160,000, if l mod 3 = 0; else up to 64 places to each side, base 10,000.  LN_0 is none.

Warner 2024, arXiv:2412.13663, sizes from appendix A. Weights: huggingface.co/answerdotai/ModernBERT-base. Objective:
masked_token. Heads of other tasks are carried along.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from sevenfold.assembly.model import ModelConfig
from sevenfold.core import part
from sevenfold.family import SAME, Family, Rule, affine
from sevenfold.family._rotary import Rope, RotaryConfig, rotary

GLOBAL, LOCAL = "full_attention", "sliding_attention"
BEFORE = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
"""Fields of older files, which `layer_types` and `rope_parameters` took the place of (with `rope_scaling`)."""


class Ropes(part.Config):
    """The rotary positions of both kinds of block."""

    full_attention: Rope | None = None
    """Of blocks that look at everything."""
    sliding_attention: Rope | None = None
    """Of blocks that look near by."""


class ModernBERT(Family):
    class Config(Family.Config):
        model_type: Literal["modernbert"] = "modernbert"
        """Which published config this is."""
        architectures: tuple[str, ...] | None = ("ModernBertForMaskedLM",)
        """What stands on the encoder: a head for masked words (also if nothing is said), or another or none."""
        vocab_size: int = Field(50368, ge=64, le=1 << 22)
        """Ids."""
        hidden_size: int = Field(768, ge=1, le=1 << 16)
        """Width."""
        intermediate_size: int = Field(1152, ge=1)
        """Inner width of the feed-forward part."""
        num_hidden_layers: int = Field(22, ge=1, le=4096)
        """Blocks."""
        num_attention_heads: int = Field(12, ge=1, le=4096)
        """Heads."""
        max_position_embeddings: int = Field(8192, ge=1, le=1 << 24)
        """The most tokens of a text."""
        hidden_activation: Literal["gelu"] = "gelu"
        """The gate's function."""
        norm_eps: float = 1e-5
        """Added to the variance."""
        norm_bias: bool = False
        """Norms have a bias."""
        attention_bias: bool = False
        """Queries, keys, values and outputs have a bias."""
        mlp_bias: bool = False
        """Layers of the feed-forward part have a bias."""
        classifier_bias: bool = False
        """The dense layer of the head has a bias."""
        classifier_activation: Literal["gelu"] = "gelu"
        """The function of the head."""
        decoder_bias: bool = True
        """Logits have a bias."""
        local_attention: int = Field(128, ge=2)
        """Blocks that look near by see half as many places to each side."""
        layer_types: tuple[Literal["full_attention", "sliding_attention"], ...] | None = None
        """What each block looks at."""
        global_attn_every_n_layers: int = Field(3, ge=1)
        """Where nothing is said of each: one block in so many looks at everything, the first among them."""
        rope_parameters: Ropes | None = None
        """Rotary positions of both kinds of block."""
        global_rope_theta: float = Field(160000.0, gt=1)
        """The base of blocks that look at everything, if rope_parameters does not say."""
        local_rope_theta: float | None = Field(10000.0, gt=1)
        """The base of the others; null for the same."""
        rope_scaling: Rope | None = None
        """How frequencies of both are scaled, in older files."""
        embedding_dropout: float = Field(0.0, ge=0, lt=1)
        """Dropout of the embedded tokens."""
        attention_dropout: float = Field(0.0, ge=0, le=0)
        """No dropout of attention."""
        mlp_dropout: float = Field(0.0, ge=0, le=0)
        """No dropout inside the feed-forward part."""
        tie_word_embeddings: Literal[True] = True
        """The head is the embedding."""

        @model_validator(mode="after")
        def _fits(self) -> ModernBERT.Config:
            named, blocks = self.layer_types, self.num_hidden_layers
            if named is not None and len(named) != blocks:
                raise ValueError(f"layer_types: {len(named)} of them, for {blocks} blocks")
            turned(self)
            return self

    sizes = {
        "base": {},
        "large": {
            "hidden_size": 1024,
            "intermediate_size": 2624,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
        },
    }
    spellings = [(r"^(embeddings|layers|final_norm)\.", r"model.\1.")]
    copies = {r"decoder\.weight": "model.embeddings.tok_embeddings.weight"}
    carried = [r"(head|classifier)\..*"]
    states = {"enc": "hidden_states"}
    objective = {"kind": "masked_token"}

    @property
    def headed(self) -> bool:
        """Whether it has a head for masked words."""
        return "ModernBertForMaskedLM" in (self.config.architectures or ("ModernBertForMaskedLM",))

    def published(self) -> dict[str, Any]:
        """As it was read: newer files have no older fields, nor older ones newer."""
        c, fields = self.config, super().published()
        left = [name for name in ("layer_types", "rope_parameters", "rope_scaling") if fields[name] is None]
        left += [BEFORE[0]] if c.layer_types is not None else []
        left += BEFORE[1:] if c.rope_parameters is not None else []
        return {name: _said(value) for name, value in fields.items() if name not in left}

    @property
    def layers(self) -> tuple[str, ...]:
        """What each block looks at."""
        c = self.config
        every = c.global_attn_every_n_layers
        return c.layer_types or tuple(LOCAL if i % every else GLOBAL for i in range(c.num_hidden_layers))

    def _blocks(self) -> list[dict[str, Any]]:
        c = self.config
        norm = {"kind": "layer", "eps": c.norm_eps, "bias": c.norm_bias}
        projection = {"kind": "linear", "bias": c.attention_bias}
        mixer = {"kind": "attention", "heads": c.num_attention_heads, "qkv": projection, "out": projection}
        block = {
            "nonlinearity": {"kind": "geglu", "inner": c.intermediate_size},
            "norm": norm,
            "projection": {"kind": "linear", "bias": c.mlp_bias},
        }
        kinds: dict[str, dict[str, Any]] = {
            GLOBAL: {"mixer": mixer},
            LOCAL: {
                "mixer": {**mixer, "window": c.local_attention // 2 + 1},
                "position": turned(c)[LOCAL],
            },
        }
        found = [{**block, **kinds[layer]} for layer in self.layers]
        found[0]["norm"] = [{"kind": "none"}, norm]
        return found

    def model(self) -> ModelConfig:
        c = self.config
        trunk = {
            "inputs": ["text"],
            "width": c.hidden_size,
            "depth": c.num_hidden_layers,
            "position": turned(c)[GLOBAL],
            "input_norm": True,
            "block": self._blocks(),
            "dropout": c.embedding_dropout,
        }
        tokenizer = {"kind": "published", "size": c.vocab_size}
        text = {"kind": "text", "tokenizer": tokenizer, "length": c.max_position_embeddings, "closed": True}
        head = {
            "trunk": "enc",
            "stream": "text",
            "projection": {"kind": "tied", "bias": c.decoder_bias},
            "transform": True,
            "transform_bias": c.classifier_bias,
        }
        heads = {"text": head} if self.headed else {}
        data = {"streams": {"text": text}, "trunks": {"enc": trunk}, "heads": heads}
        return part.decode(ModelConfig, data, "modernbert config")

    def rules(self) -> list[Rule]:
        c = self.config
        norm, attention, mlp = (SAME if bias else None for bias in (c.norm_bias, c.attention_bias, c.mlp_bias))
        rules = [
            Rule("trunks.enc.embeds.text.weight", "model.embeddings.tok_embeddings.weight"),
            *affine("trunks.enc.input_norm", "model.embeddings.norm", bias=norm),
            *affine("trunks.enc.norm", "model.final_norm", bias=norm),
        ]
        for i in range(c.num_hidden_layers):
            ours, theirs = f"trunks.enc.blocks.{i}", f"model.layers.{i}"
            if i:
                rules += affine(f"{ours}.norms.0", f"{theirs}.attn_norm", bias=norm)
            rules += affine(f"{ours}.mixer.qkv", f"{theirs}.attn.Wqkv", bias=attention)
            rules += affine(f"{ours}.mixer.out", f"{theirs}.attn.Wo", bias=attention)
            rules += affine(f"{ours}.norms.1", f"{theirs}.mlp_norm", bias=norm)
            rules += affine(f"{ours}.feed.up", f"{theirs}.mlp.Wi", bias=mlp)
            rules += affine(f"{ours}.feed.out", f"{theirs}.mlp.Wo", bias=mlp)
        if self.headed:
            rules += affine("heads.text.dense", "head.dense", bias=SAME if c.classifier_bias else None)
            rules += affine("heads.text.norm", "head.norm", bias=norm)
            rules += [Rule("heads.text.projection.bias", "decoder.bias")] if c.decoder_bias else []
        return rules


def turned(config: Any) -> dict[str, dict[str, Any]]:
    """The position of each kind of block. ValueError for settings that ours cannot have."""
    ropes = config.rope_parameters or Ropes()
    told = {
        GLOBAL: (ropes.full_attention, config.global_rope_theta),
        LOCAL: (ropes.sliding_attention, config.local_rope_theta or config.global_rope_theta),
    }
    length, scaling = config.max_position_embeddings, config.rope_scaling
    return {
        kind: rotary(
            RotaryConfig(max_position_embeddings=length, rope_parameters=rope, rope_theta=base, rope_scaling=scaling)
        )
        for kind, (rope, base) in told.items()
    }


def _said(value: Any) -> Any:
    """Without what is None in it."""
    return {key: _said(item) for key, item in value.items() if item is not None} if isinstance(value, dict) else value
