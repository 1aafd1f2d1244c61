"""SigLIP: a tower for pictures and a tower for captions, which learn pair by pair whether they belong together.

    u = z + W gelu(U LN(z)),  z = attention(probe; LN(v));   w = T LN(t)_last + c;   logits = exp(s) u w^T / (|u| |w|) + b

Zhai 2023, arXiv:2303.15343 section 3; the probe that pools a picture is that of Zhai 2021, arXiv:2106.04560 section 3. GELU
is the tanh approximation. Weights: huggingface.co/google/siglip-base-patch16-224. Captions are filled up to `length`, and what
fills them is read as well. Objective: {kind: sigmoid, trunks: [map, t], multi_positive: false}, which holds the scale s and the
bias b; they are kept with the weights for it.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.assembly.model import ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.family import Family, Op, Rule, affine, begun, blocks, lead, patches
from sevenfold.family._pictures import Pictures, table
from sevenfold.family.clip import LAYERS, TowerConfig, tower


class SigLIPTowerConfig(TowerConfig):
    """What both towers have."""

    hidden_size: int = Field(768, ge=1, le=1 << 16)
    """Width."""
    num_attention_heads: int = Field(12, ge=1, le=4096)
    """Heads."""
    intermediate_size: int = Field(3072, ge=1)
    """Inner width of the feed-forward part."""
    layer_norm_eps: float = 1e-6
    """Added to the variance."""
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu"] = "gelu_pytorch_tanh"
    """The activation."""


class TextConfig(SigLIPTowerConfig):
    """The tower for captions."""

    vocab_size: int = Field(32000, ge=260, le=1 << 22)
    """Ids."""
    max_position_embeddings: int = Field(64, ge=1, le=1 << 22)
    """Tokens of a caption, filled up."""
    pad_token_id: int = Field(1, ge=0)
    """What captions are filled up with, where the tokenizer names no padding token of its own."""
    projection_size: int | None = Field(None, ge=1, le=1 << 16)
    """Channels of the shared space; by default the width."""


class PictureConfig(SigLIPTowerConfig):
    """The tower for pictures."""

    image_size: int = Field(224, ge=1, le=1 << 16)
    """Height and width of a picture; pixels beyond the last whole patch are left out."""
    patch_size: int = Field(16, ge=1, le=256)
    """Height and width of a patch."""
    num_channels: int = Field(3, ge=1, le=1024)
    """Channels of a picture."""
    vision_use_head: Literal[True] = True
    """Pictures are pooled by a probe."""


LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
SO400M = {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304}
"""The shape that is best for its number of operations, arXiv:2305.13035."""


class SigLIP(Pictures):
    class Config(Family.Config):
        model_type: Literal["siglip"] = "siglip"
        """Which published config this is."""
        architectures: tuple[Literal["SiglipModel"], ...] | None = ("SiglipModel",)
        """Both towers."""
        text_config: TextConfig = TextConfig()
        """The tower for captions."""
        vision_config: PictureConfig = PictureConfig()
        """The tower for pictures."""

    sizes = {
        "base_patch16_224": {},
        "base_patch16_384": {"vision_config": {"image_size": 384}},
        "large_patch16_256": {"vision_config": {**LARGE, "image_size": 256}, "text_config": LARGE},
        "so400m_patch14_384": {
            "vision_config": {**SO400M, "image_size": 384, "patch_size": 14},
            "text_config": SO400M,
        },
    }
    processor = "Siglip"
    states = {"v": "vision_model_output.hidden_states", "t": "text_model_output.hidden_states"}
    objective = {"kind": "sigmoid", "trunks": ("map", "t"), "multi_positive": False}
    unused = [r"(text|vision)_model\.embeddings\.position_ids"]

    def model(self) -> ModelConfig:
        text, vision = self.config.text_config, self.config.vision_config
        outputs = text.projection_size or text.hidden_size
        if outputs != vision.hidden_size:
            raise ConfigError(
                f"siglip: captions become vectors of {outputs}, pictures of {vision.hidden_size}: they cannot be compared"
            )
        words = {"kind": "published", "size": text.vocab_size}
        length = {"length": text.max_position_embeddings, "closed": True, "fill": text.pad_token_id}
        pictures = {**tower(vision, "image", 1), "position": self.position(vision)}
        block = {**pictures["block"], "mixer": None, "cross": {"kind": "cross", "heads": vision.num_attention_heads}}
        probe = {"inputs": [], "registers": 1, "cross_attends": "v", "depth": 1, "width": vision.hidden_size}
        data = {
            "streams": {"image": self.stream(vision), "text": {"kind": "text", "tokenizer": words, **length}},
            "trunks": {
                "v": pictures,
                "map": {**probe, "position": "none", "final_norm": False, "block": {**block, "probe": True}},
                "t": tower(text, "text", text.max_position_embeddings),
            },
            "heads": {
                "map": {"trunk": "map", "outputs": outputs, "pool": "mean", "projection": "identity"},
                "t": {"trunk": "t", "outputs": outputs, "pool": "last", "projection": {"kind": "linear", "bias": True}},
            },
        }
        return part.decode(ModelConfig, data, "siglip")

    def rules(self) -> list[Rule]:
        text, vision = self.config.text_config, self.config.vision_config
        convolution = patches(vision.patch_size, vision.num_channels)
        picture, words, head = "vision_model.embeddings", "text_model.embeddings", "vision_model.head"
        probe = "trunks.map.blocks.0"
        return [
            *affine("trunks.v.embeds.image", f"{picture}.patch_embedding", convolution),
            table("v", f"{picture}.position_embedding.weight", class_row=False, axes=0),
            *blocks("v", vision.num_hidden_layers, "vision_model.encoder.layers.{i}", LAYERS),
            *affine("trunks.v.norm", "vision_model.post_layernorm"),
            Rule("trunks.map.tokens", f"{head}.probe", lead(1)),
            *(
                Rule(
                    (f"{probe}.cross.query.{kind}", f"{probe}.cross.key_value.{kind}"),
                    f"{head}.attention.{name}",
                    ASKED,
                )
                for kind, name in (("weight", "in_proj_weight"), ("bias", "in_proj_bias"))
            ),
            *affine(f"{probe}.cross.out", f"{head}.attention.out_proj"),
            *affine(f"{probe}.norms.0", f"{head}.layernorm"),
            *affine(f"{probe}.feed.up", f"{head}.mlp.fc1"),
            *affine(f"{probe}.feed.out", f"{head}.mlp.fc2"),
            Rule("trunks.t.embeds.text.weight", f"{words}.token_embedding.weight"),
            Rule("trunks.t.position.tables", f"{words}.position_embedding.weight", lead(-1)),
            *blocks("t", text.num_hidden_layers, "text_model.encoder.layers.{i}", LAYERS),
            *affine("trunks.t.norm", "text_model.final_layer_norm"),
            *affine("heads.t.projection", "text_model.head"),
            Rule("objective.scale", "logit_scale", begun(lead(1), math.log(10))),
            Rule("objective.bias", "logit_bias", begun(lead(1), -10.0)),
        ]


def _apart(theirs: list[Any]) -> list[Tensor]:
    third = len(theirs[0]) // 3
    return [theirs[0][:third], theirs[0][third:]]


ASKED = Op(_apart, lambda ours: [torch.cat(ours)])
"""Query, key and value in one matrix → the query's, and that of key and value."""
