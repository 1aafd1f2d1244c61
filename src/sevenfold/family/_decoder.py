"""What the families of causal decoders with rotary positions share: their fields, our trunk, the map of the weights.

    x <- x + attention(N(x));  x <- x + feed(N(x));  logits = W N(x)          N: root-mean-square norm, no biases by default

A config says by its `wiring` how its blocks differ; `trunk` and `rules` read nothing else, so that a model with a decoder
inside (a picture's tokens before the words) uses them as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import Field, model_validator

from sevenfold.assembly.model import ModelConfig
from sevenfold.core import part
from sevenfold.family import Family, Op, Rule, affine, repeat, stack
from sevenfold.family._rotary import RotaryConfig, rotary, said


class Wiring(NamedTuple):
    """How a decoder's blocks are built, beside their sizes."""

    qkv_bias: bool = False
    """Queries, keys and values have biases."""
    out_bias: bool = False
    """The layer that joins the heads has one."""
    feed_bias: bool = False
    """The layers of the feed-forward part have them."""
    query_key_norm: bool = False
    """Queries and keys are normed, head by head."""
    norm_across: bool = False
    """They are normed over all heads together."""
    output_norm: bool = False
    """The output of each part is normed, not its input."""
    windows: tuple[int | None, ...] = ()
    """How far tokens see in each block; none is said: everywhere everything before."""
    norms: tuple[str, str] = ("input_layernorm", "post_attention_layernorm")
    """Published names of a block's norms."""
    feed: str = "swiglu"
    """Our feed-forward part."""
    up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    """Published names of its first layers."""
    more: tuple[tuple[str, str, Op], ...] = ()
    """Further tensors of a block: ours (or nothing), theirs, both named from the block on, and what happens between."""


class DecoderConfig(Family.Config, RotaryConfig):
    """What published decoders say of themselves."""

    architectures: tuple[str, ...] | None = None
    """What stands on the decoder: a head for the next token (…ForCausalLM, or nothing is said), or none."""
    vocab_size: int = Field(32000, ge=8, le=1 << 22)
    """Ids."""
    hidden_size: int = Field(4096, ge=1, le=1 << 16)
    """Width."""
    intermediate_size: int = Field(11008, ge=1, le=1 << 20)
    """Inner width of the feed-forward part."""
    num_hidden_layers: int = Field(32, ge=1, le=4096)
    """Blocks."""
    num_attention_heads: int = Field(32, ge=1, le=4096)
    """Heads."""
    num_key_value_heads: int = Field(32, ge=1, le=4096)
    """Key and value heads, shared by groups of heads; null for as many as heads."""
    head_dim: int = Field(128, ge=2, le=1 << 14)
    """Width of a head; null for the width divided by the heads."""
    rms_norm_eps: float = Field(1e-6, gt=0, lt=1)
    """Added to the mean square."""
    attention_bias: bool = False
    """Whether the layers of attention have biases."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of attention weights."""
    tie_word_embeddings: bool = False
    """Whether the head is the embedding."""

    @classmethod
    def defaults(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The values of fields that such a config does not say."""
        return {}

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        found = {**cls.defaults(given), **given}
        heads, width = (
            found.get(name, cls.model_fields[name].default) for name in ("num_attention_heads", "hidden_size")
        )
        if found.get("num_key_value_heads") is None:
            found["num_key_value_heads"] = heads
        if found.get("head_dim") is None and isinstance(heads, int) and isinstance(width, int) and heads > 0:
            found["head_dim"] = width // heads
        return found

    @model_validator(mode="after")
    def _check(self) -> DecoderConfig:
        if self.num_attention_heads % self.num_key_value_heads:
            heads = f"{self.num_key_value_heads} do not divide {self.num_attention_heads} heads"
            raise ValueError(f"num_key_value_heads: {heads}")
        _ = self.wiring
        return self

    @property
    def wiring(self) -> Wiring:
        """How its blocks differ. ValueError for settings that contradict each other."""
        raise NotImplementedError


class Decoder(Family):
    """A decoder on its own, with a head for the next token unless it is only …Model."""

    states = {"lm": "hidden_states"}
    objective = {"kind": "next_token"}
    spellings: Sequence[tuple[str, str]] = [(r"^(embed_tokens|layers|norm)\.", r"model.\1.")]
    unused = [r".*rotary_emb\.inv_freq"]
    carried = [r"score\..*"]

    def __init__(self, config: Any):
        super().__init__(config)
        self.copies = {r"lm_head\.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {}

    @property
    def headed(self) -> bool:
        """Whether it has a head for the next token."""
        named = self.config.architectures
        return not named or any(name.endswith("ForCausalLM") for name in named)

    def published(self) -> dict[str, Any]:
        return said(self.config, super().published())

    def model(self) -> ModelConfig:
        c = self.config
        head = {"trunk": "lm", "stream": "text", "projection": "tied" if c.tie_word_embeddings else "linear"}
        data = {
            "streams": {"text": words(c)},
            "trunks": {"lm": trunk(c)},
            "heads": {"text": head} if self.headed else {},
        }
        return part.decode(ModelConfig, data, str(self.kind))

    def rules(self) -> list[Rule]:
        found = rules(self.config)
        if self.headed and not self.config.tie_word_embeddings:
            found.append(Rule("heads.text.projection.weight", "lm_head.weight"))
        return found


def words(config: DecoderConfig) -> dict[str, Any]:
    """The stream of text."""
    tokenizer = {"kind": "published", "size": config.vocab_size}
    return {"kind": "text", "tokenizer": tokenizer, "length": config.max_position_embeddings}


def trunk(config: DecoderConfig, inputs: Sequence[str] = ("text",)) -> dict[str, Any]:
    """The trunk that a config describes."""
    windows = config.wiring.windows
    blocks = [block(config, window) for window in windows]
    alike = len(set(windows)) < 2
    return {
        "inputs": list(inputs),
        "width": config.hidden_size,
        "depth": config.num_hidden_layers,
        "position": rotary(config),
        "mask": {"causal": True},
        "block": block(config, windows[0] if windows else None) if alike else blocks,
    }


def block(config: DecoderConfig, window: int | None = None) -> dict[str, Any]:
    """One block."""
    wiring = config.wiring
    mixer = {
        "kind": "attention",
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_width": config.head_dim,
        "window": window,
        "dropout": config.attention_dropout,
        "query_key_norm": wiring.query_key_norm,
        "norm_across": wiring.norm_across,
        "norm_eps": config.rms_norm_eps,
        "qkv": {"kind": "linear", "bias": wiring.qkv_bias},
        "out": {"kind": "linear", "bias": wiring.out_bias},
    }
    return {
        "mixer": mixer,
        "nonlinearity": {"kind": wiring.feed, "inner": config.intermediate_size},
        "norm": {"kind": "rms", "eps": config.rms_norm_eps},
        "projection": {"kind": "linear", "bias": wiring.feed_bias},
        "output_norm": wiring.output_norm,
    }


def rules(config: DecoderConfig, name: str = "lm", stream: str = "text", theirs: str = "model") -> list[Rule]:
    """The map of the weights of trunk `name`, with the embedding of `stream`, and without a head; `theirs` is where the
    published names begin."""
    wiring, width, inner = config.wiring, config.head_dim, config.intermediate_size
    query, key = config.num_attention_heads * width, config.num_key_value_heads * width
    own, their = f"trunks.{name}.blocks.{{i}}", f"{theirs}.layers.{{i}}"

    def layer(ours: str, names: tuple[str, ...], bias: bool, *sizes: int) -> list[Rule]:
        op = stack(*sizes)
        return affine(f"{own}.{ours}", tuple(f"{their}.{name}" for name in names), op, op if bias else None)

    once = [
        *layer(
            "mixer.qkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), wiring.qkv_bias, query, key, key
        ),
        *layer("mixer.out", ("self_attn.o_proj",), wiring.out_bias, config.hidden_size),
        *layer("feed.up", wiring.up, wiring.feed_bias, *[inner] * len(wiring.up)),
        *layer("feed.out", ("mlp.down_proj",), wiring.feed_bias, config.hidden_size),
        *(Rule(f"{own}.norms.{place}.weight", f"{their}.{name}.weight") for place, name in enumerate(wiring.norms)),
        *(Rule(f"{own}.{ours}" if ours else (), f"{their}.{name}", op) for ours, name, op in wiring.more),
    ]
    if wiring.query_key_norm:
        once += [
            Rule(f"{own}.mixer.query_norm.weight", f"{their}.self_attn.q_norm.weight"),
            Rule(f"{own}.mixer.key_norm.weight", f"{their}.self_attn.k_norm.weight"),
        ]
    return [
        Rule(f"trunks.{name}.embeds.{stream}.weight", f"{theirs}.embed_tokens.weight"),
        *repeat(config.num_hidden_layers, once),
        Rule(f"trunks.{name}.norm.weight", f"{theirs}.norm.weight"),
    ]
