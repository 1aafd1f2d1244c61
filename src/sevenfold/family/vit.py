"""Vision transformer: patches of a picture and a class token, learned positions, pre-norm.

    x <- [c, W p_1, …, W p_n] + T;  x <- x + attention(LN(x));  x <- x + W gelu(U LN(x));  logits = V LN(x)_0 + b

Dosovitskiy 2020, arXiv:2010.11929 eq. 1-4, sizes from table 1. Weights: huggingface.co/google/vit-base-patch16-224.
Objective: supervised with pool: class. The pooler of a bare ViTModel is carried along.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from sevenfold.assembly.model import ModelConfig
from sevenfold.core import part
from sevenfold.family import Family, Rule, affine, lead, patches
from sevenfold.family._pictures import ACTIVATIONS, Pictures, cells, classifier, encoder, table

LAYERS: dict[str, str | tuple[str, ...]] = {
    "norms.0": "layernorm_before",
    "mixer.qkv": ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    "mixer.out": "attention.output.dense",
    "norms.1": "layernorm_after",
    "feed.up": "intermediate.dense",
    "feed.out": "output.dense",
}
"""A block's layers → their published names."""


class VisionConfig(Family.Config):
    """What ViT and ViT-MAE say of their encoder."""

    hidden_size: int = Field(768, ge=1, le=1 << 16)
    """Width."""
    num_hidden_layers: int = Field(12, ge=1, le=4096)
    """Blocks."""
    num_attention_heads: int = Field(12, ge=1, le=4096)
    """Heads."""
    intermediate_size: int = Field(3072, ge=1)
    """Inner width of the feed-forward part."""
    image_size: int = Field(224, ge=1, le=1 << 16)
    """Height and width of a picture."""
    patch_size: int = Field(16, ge=1, le=256)
    """Height and width of a patch."""
    num_channels: int = Field(3, ge=1, le=1024)
    """Channels of a picture."""
    layer_norm_eps: float = 1e-12
    """Added to the variance."""
    hidden_dropout_prob: float = 0.0
    """Dropout of each part's output and of the embedded tokens."""
    attention_probs_dropout_prob: float = 0.0
    """Dropout of attention weights."""
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu"] = "gelu"
    """The activation: the exact GELU, its approximations, or another."""
    qkv_bias: bool = True
    """Whether queries, keys and values have a bias, like the other layers."""


class ViT(Pictures):
    class Config(VisionConfig):
        model_type: Literal["vit"] = "vit"
        """Which published config this is."""
        architectures: tuple[str, ...] | None = ("ViTForImageClassification",)
        """What stands on the encoder: a classifier, or nothing (ViTModel)."""
        id2label: dict[int, str] = {place: f"LABEL_{place}" for place in range(1000)}
        """The classes."""
        pooler_output_size: int | None = Field(None, ge=1, le=1 << 16)
        """Channels of the pooler of a bare ViTModel, which is carried along."""
        pooler_act: str = "tanh"
        """Its activation."""

    sizes = {
        "base_patch16": {},
        "base_patch32": {"patch_size": 32},
        "large_patch16": {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
        },
        "huge_patch14": {
            "hidden_size": 1280,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "intermediate_size": 5120,
            "patch_size": 14,
        },
    }
    spellings = [(r"^(embeddings|encoder|layernorm|pooler)\.", r"vit.\1.")]
    carried = [r"vit\.pooler\..*"]
    states = {"enc": "hidden_states"}
    objective = {"kind": "supervised", "pool": "class"}

    @property
    def headed(self) -> bool:
        """Whether it has a classifier."""
        return "ViTForImageClassification" in (self.config.architectures or ("ViTForImageClassification",))

    def model(self) -> ModelConfig:
        c = self.config
        cells(c)
        enc = {**trunk(c, ["image"], class_token=True), "position": self.position(c, class_row=True)}
        data: dict[str, Any] = {"streams": {"image": self.stream(c)}, "trunks": {"enc": enc}}
        if self.headed:
            told = classifier(c.id2label, "class")
            data = {**data, "streams": data["streams"] | told["streams"], "heads": told["heads"]}
        return part.decode(ModelConfig, data, "vit")

    def rules(self) -> list[Rule]:
        c = self.config
        return [
            *embedding(c),
            table("enc", "vit.embeddings.position_embeddings"),
            *encoder("enc", c.num_hidden_layers, "vit.encoder.layer.{i}", LAYERS, c.qkv_bias),
            *affine("trunks.enc.norm", "vit.layernorm"),
            *(affine("heads.label.projection", "classifier") if self.headed else []),
        ]


def trunk(config: Any, inputs: list[str], prefix: str = "", class_token: bool = False) -> dict[str, Any]:
    """The trunk that fields of a VisionConfig (their names after `prefix`) describe, without its position."""
    block = {
        "mixer": {
            "kind": "attention",
            "heads": getattr(config, f"{prefix}num_attention_heads"),
            "qkv": {"kind": "linear", "bias": config.qkv_bias},
            "dropout": config.attention_probs_dropout_prob,
        },
        "nonlinearity": {**ACTIVATIONS[config.hidden_act], "inner": getattr(config, f"{prefix}intermediate_size")},
        "norm": {"kind": "layer", "eps": config.layer_norm_eps},
        "projection": {"kind": "linear", "bias": True},
        "dropout": config.hidden_dropout_prob,
    }
    width, depth = getattr(config, f"{prefix}hidden_size"), getattr(config, f"{prefix}num_hidden_layers")
    shape = {"inputs": inputs, "width": width, "depth": depth, "class_token": class_token}
    return {**shape, "block": block, "dropout": config.hidden_dropout_prob}


def embedding(config: Any) -> list[Rule]:
    """Class token and patch projection."""
    convolution = patches(config.patch_size, config.num_channels)
    return [
        Rule("trunks.enc.tokens", "vit.embeddings.cls_token", lead(1)),
        *affine("trunks.enc.embeds.image", "vit.embeddings.patch_embeddings.projection", convolution),
    ]
