"""I-JEPA: the encoder of a joint-embedding predictive architecture, a vision transformer without a class token.

    x <- [W p_1 + T_1, …];  x <- x + attention(LN(x));  x <- x + W gelu(U LN(x));  logits = V mean(LN(x)) + b

Assran 2023, arXiv:2301.08243, sizes from its appendix A. Weights: huggingface.co/facebook/ijepa_vith14_1k, which hold the
encoder alone. Objective: supervised with pool: mean, where there is a classifier.
"""

from __future__ import annotations

from typing import Any, Literal

from sevenfold.assembly.model import ModelConfig
from sevenfold.core import part
from sevenfold.family import Rule, affine, patches
from sevenfold.family._pictures import IMAGENET, Pictures, cells, classifier, encoder, table
from sevenfold.family.vit import LAYERS, VisionConfig, trunk


class IJEPA(Pictures):
    class Config(VisionConfig):
        model_type: Literal["ijepa"] = "ijepa"
        """Which published config this is."""
        architectures: tuple[str, ...] | None = ("IJepaModel",)
        """What stands on the encoder: nothing, or a classifier."""
        id2label: dict[int, str] = {place: f"LABEL_{place}" for place in range(1000)}
        """The classes of the classifier."""

    sizes = {
        "huge_patch14": {
            "hidden_size": 1280,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "intermediate_size": 5120,
            "patch_size": 14,
            "layer_norm_eps": 1e-6,
        },
        "huge_patch16_448": {
            "hidden_size": 1280,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "intermediate_size": 5120,
            "image_size": 448,
            "layer_norm_eps": 1e-6,
        },
    }
    carried = [r"(ijepa\.)?(pooler\..*|embeddings\.mask_token)"]
    colours = IMAGENET
    states = {"enc": "hidden_states"}
    objective = {"kind": "supervised", "pool": "mean"}

    def __init__(self, config: Any):
        super().__init__(config)
        self.headed = any(name.endswith("ForImageClassification") for name in config.architectures or ())
        """Whether it has a classifier."""
        self.prefix = "ijepa." if self.headed else ""
        self.spellings = ((r"^(?:ijepa\.)?(embeddings|encoder|layernorm|pooler)\.", rf"{self.prefix}\1."),)

    def model(self) -> ModelConfig:
        c = self.config
        cells(c)
        data: dict[str, Any] = {
            "streams": {"image": self.stream(c)},
            "trunks": {"enc": {**trunk(c, ["image"]), "position": self.position(c)}},
        }
        if self.headed:
            told = classifier(c.id2label, "mean")
            data = {**data, "streams": data["streams"] | told["streams"], "heads": told["heads"]}
        return part.decode(ModelConfig, data, "ijepa")

    def rules(self) -> list[Rule]:
        c, embeddings = self.config, f"{self.prefix}embeddings"
        convolution = patches(c.patch_size, c.num_channels)
        return [
            *affine("trunks.enc.embeds.image", f"{embeddings}.patch_embeddings.projection", convolution),
            table("enc", f"{embeddings}.position_embeddings", class_row=False),
            *encoder("enc", c.num_hidden_layers, f"{self.prefix}encoder.layer.{{i}}", LAYERS, c.qkv_bias),
            *affine("trunks.enc.norm", f"{self.prefix}layernorm"),
            *(affine("heads.label.projection", "classifier") if self.headed else []),
        ]
