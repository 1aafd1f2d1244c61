"""CLIP: a tower for pictures and a tower for captions, whose vectors meet in one space.

    u = V LN(v)_class,   w = T LN(t)_eos,   logits = exp(s) u w^T / (|u| |w|);   g(x) = x sigmoid(1.702 x) in both

Radford 2021, arXiv:2103.00020 section 2, sizes from table 20. Weights: huggingface.co/openai/clip-vit-base-patch32.
Objective: {kind: infonce, trunks: [v, t], multi_positive: false}, whose scale s is among the weights.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from sevenfold.assembly.model import ModelConfig
from sevenfold.core import part
from sevenfold.family import SAME, Family, Rule, affine, begun, blocks, lead, patches
from sevenfold.family._pictures import ACTIVATIONS, OPENAI, Pictures, cells, table

LAYERS: dict[str, str | tuple[str, ...]] = {
    "norms.0": "layer_norm1",
    "mixer.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mixer.out": "self_attn.out_proj",
    "norms.1": "layer_norm2",
    "feed.up": "mlp.fc1",
    "feed.out": "mlp.fc2",
}


class TowerConfig(part.Config):
    """What both towers have."""

    num_hidden_layers: int = Field(12, ge=1, le=4096)
    """Blocks."""
    layer_norm_eps: float = 1e-5
    """Added to the variance."""
    attention_dropout: float = 0.0
    """Dropout of attention weights."""
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu"] = "quick_gelu"
    """The sigmoid approximation of GELU (OpenAI), the exact one, or another."""


class TextConfig(TowerConfig):
    """The tower for captions."""

    vocab_size: int = Field(49408, ge=260, le=1 << 22)
    """Ids."""
    max_position_embeddings: int = Field(77, ge=1, le=1 << 22)
    """Rows of the position table."""
    hidden_size: int = Field(512, ge=1, le=1 << 16)
    """Width."""
    num_attention_heads: int = Field(8, ge=1, le=4096)
    """Heads."""
    intermediate_size: int = Field(2048, ge=1)
    """Inner width of the feed-forward part."""
    eos_token_id: int = Field(49407, ge=0)
    """The end token, whose vector stands for a caption; 2 in older files, which mean the largest id. Both are the last."""


class PictureConfig(TowerConfig):
    """The tower for pictures."""

    hidden_size: int = Field(768, ge=1, le=1 << 16)
    """Width."""
    num_attention_heads: int = Field(12, ge=1, le=4096)
    """Heads."""
    intermediate_size: int = Field(3072, ge=1)
    """Inner width of the feed-forward part."""
    image_size: int = Field(224, ge=1, le=1 << 16)
    """Height and width of a picture."""
    patch_size: int = Field(32, ge=1, le=256)
    """Height and width of a patch."""
    num_channels: int = Field(3, ge=1, le=1024)
    """Channels of a picture."""


LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
WIDE_TEXT = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}


class CLIP(Pictures):
    class Config(Family.Config):
        model_type: Literal["clip"] = "clip"
        """Which published config this is."""
        text_config: TextConfig = TextConfig()
        """The tower for captions."""
        vision_config: PictureConfig = PictureConfig()
        """The tower for pictures."""
        projection_dim: int = Field(512, ge=1, le=1 << 16)
        """Channels of the shared space."""

    sizes = {
        "base_patch32": {},
        "base_patch16": {"vision_config": {"patch_size": 16}},
        "large_patch14": {
            "vision_config": {**LARGE, "patch_size": 14},
            "text_config": WIDE_TEXT,
            "projection_dim": 768,
        },
    }
    processor = "CLIP"
    colours = OPENAI
    states = {"v": "vision_model_output.hidden_states", "t": "text_model_output.hidden_states"}
    objective = {"kind": "infonce", "trunks": ("v", "t"), "multi_positive": False}
    unused = [r"(text|vision)_model\.embeddings\.position_ids"]

    def model(self) -> ModelConfig:
        text, vision = self.config.text_config, self.config.vision_config
        cells(vision)
        words = {"kind": "published", "size": text.vocab_size}
        data = {
            "streams": {
                "image": self.stream(vision, bias=False),
                "text": {"kind": "text", "tokenizer": words, "length": text.max_position_embeddings, "closed": True},
            },
            "trunks": {
                "v": {
                    **tower(vision, "image", 1),
                    "position": self.position(vision, class_row=True),
                    "class_token": True,
                    "input_norm": True,
                },
                "t": {**tower(text, "text", text.max_position_embeddings), "mask": {"causal": True}},
            },
            "heads": {
                "v": {"trunk": "v", "outputs": self.config.projection_dim, "pool": "class"},
                "t": {"trunk": "t", "outputs": self.config.projection_dim, "pool": "last"},
            },
        }
        return part.decode(ModelConfig, data, "clip")

    def rules(self) -> list[Rule]:
        text, vision = self.config.text_config, self.config.vision_config
        convolution = patches(vision.patch_size, vision.num_channels)
        picture, words = "vision_model.embeddings", "text_model.embeddings"
        return [
            Rule("trunks.v.tokens", f"{picture}.class_embedding", lead(-1)),
            Rule("trunks.v.embeds.image.weight", f"{picture}.patch_embedding.weight", convolution),
            table("v", f"{picture}.position_embedding.weight", axes=0),
            *affine("trunks.v.input_norm", "vision_model.pre_layrnorm"),
            *blocks("v", vision.num_hidden_layers, "vision_model.encoder.layers.{i}", LAYERS),
            *affine("trunks.v.norm", "vision_model.post_layernorm"),
            Rule("heads.v.projection.weight", "visual_projection.weight"),
            Rule("trunks.t.embeds.text.weight", f"{words}.token_embedding.weight"),
            Rule("trunks.t.position.tables", f"{words}.position_embedding.weight", lead(-1)),
            *blocks("t", text.num_hidden_layers, "text_model.encoder.layers.{i}", LAYERS),
            *affine("trunks.t.norm", "text_model.final_layer_norm"),
            Rule("heads.t.projection.weight", "text_projection.weight"),
            Rule("objective.scale", "logit_scale", begun(SAME, math.log(1 / 0.07))),
        ]


def tower(config: Any, stream: str, places: int) -> dict[str, Any]:
    """The trunk of one tower."""
    block = {
        "mixer": {"kind": "attention", "heads": config.num_attention_heads, "dropout": config.attention_dropout},
        "nonlinearity": {**ACTIVATIONS[config.hidden_act], "inner": config.intermediate_size},
        "norm": {"kind": "layer", "eps": config.layer_norm_eps},
        "projection": {"kind": "linear", "bias": True},
    }
    position = {"kind": "learned", "size": places}
    shape = {"inputs": [stream], "width": config.hidden_size, "depth": config.num_hidden_layers}
    return {**shape, "position": position, "block": block}
