"""DINOv2: a vision transformer whose branches are weighed channel by channel, without and with registers.

    x <- [c + T_0, r_1 … r_R, W p_1 + T_1, …];  x <- x + g attention(LN(x));  x <- x + h feed(LN(x));  logits = V [x_0, mean x]

Oquab 2023, arXiv:2304.07193, sizes from its table 17; registers r Darcet 2023, arXiv:2309.16588. Weights:
huggingface.co/facebook/dinov2-base. Objective: supervised with pool: class_mean, where there is a classifier. The table T
is learned on pictures of 518 pixels, and stretched to those of 224 that the preprocessor makes (with registers: blurred
first). The mask token is that of the objectives ibot and dinov2; without one of these it is carried along.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.assembly.model import ModelConfig
from sevenfold.core import part
from sevenfold.family import Family, Op, Rule, affine, patches, repeat
from sevenfold.family._pictures import IMAGENET, Pictures, cells, classifier, encoder, table
from sevenfold.family.vit import trunk

LAYERS: dict[str, str | tuple[str, ...]] = {
    "norms.0": "norm1",
    "mixer.qkv": ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    "mixer.out": "attention.output.dense",
    "norms.1": "norm2",
}
REGISTERS = {"dinov2": 0, "dinov2_with_registers": 4}
ANTIALIAS = {"dinov2": False, "dinov2_with_registers": True}
"""Whether the table is blurred where it shrinks."""


class DINOv2(Pictures):
    class Config(Family.Config):
        model_type: Literal["dinov2", "dinov2_with_registers"] = "dinov2"
        """Which published config this is."""
        architectures: tuple[str, ...] | None = ("Dinov2Model",)
        """What stands on the encoder: nothing, or a classifier."""
        id2label: dict[int, str] = {place: f"LABEL_{place}" for place in range(1000)}
        """The classes of the classifier."""
        hidden_size: int = Field(768, ge=1, le=1 << 16)
        """Width."""
        num_hidden_layers: int = Field(12, ge=1, le=4096)
        """Blocks."""
        num_attention_heads: int = Field(12, ge=1, le=4096)
        """Heads."""
        mlp_ratio: int = Field(4, ge=1, le=64)
        """Inner width of the feed-forward part / width."""
        use_swiglu_ffn: bool = False
        """Whether the feed-forward part is gated (giant)."""
        hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu"] = "gelu"
        """The activation, where it is not."""
        layerscale_value: float = Field(1.0, gt=0)
        """The first value of g and h."""
        num_register_tokens: int | None = Field(None, ge=0, le=1024)
        """Registers; by default 4 with registers."""
        use_mask_token: bool = True
        """Whether there is a mask token (with registers there always is)."""
        image_size: int = Field(518, ge=1, le=1 << 16)
        """Height and width of the pictures that the table of places is for."""
        patch_size: int = Field(14, ge=1, le=256)
        """Height and width of a patch."""
        num_channels: int = Field(3, ge=1, le=1024)
        """Channels of a picture."""
        layer_norm_eps: float = 1e-6
        """Added to the variance."""
        hidden_dropout_prob: float = 0.0
        """Dropout of the embedded tokens."""
        attention_probs_dropout_prob: float = 0.0
        """Dropout of attention weights."""
        drop_path_rate: float = Field(0.0, ge=0, le=0)
        """Branches left out in training: none."""
        qkv_bias: bool = True
        """Whether queries, keys and values have a bias."""

        @property
        def intermediate_size(self) -> int:
            """The inner width; of a gated part two thirds of it, rounded up to 8 channels."""
            inner = self.hidden_size * self.mlp_ratio
            return (int(inner * 2 / 3) + 7) // 8 * 8 if self.use_swiglu_ffn else inner

    sizes = {
        "small": {"hidden_size": 384, "num_attention_heads": 6},
        "base": {},
        "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
        "giant": {
            "hidden_size": 1536,
            "num_hidden_layers": 40,
            "num_attention_heads": 24,
            "use_swiglu_ffn": True,
        },
    }
    sizes |= {f"{size}_registers": {"model_type": "dinov2_with_registers", **told} for size, told in sizes.items()}
    processor = "Bit"
    stretches = False
    colours = IMAGENET
    states = {"enc": "hidden_states"}
    objective = {"kind": "supervised", "pool": "class_mean"}

    def __init__(self, config: Any):
        super().__init__(config)
        self.headed = any(name.endswith("ForImageClassification") for name in config.architectures or ())
        """Whether it has a classifier."""
        self.prefix = f"{config.model_type}." if self.headed else ""
        self.spellings = ((r"^(?:dinov2\w*\.)?(embeddings|encoder|layernorm)\.", rf"{self.prefix}\1."),)

    @property
    def registers(self) -> int:
        """How many registers it has."""
        usual, told = REGISTERS[self.config.model_type], self.config.num_register_tokens
        return told if told is not None and usual else usual

    def published(self) -> dict[str, Any]:
        fields = super().published()
        return {name: value for name, value in fields.items() if name != "num_register_tokens" or value is not None}

    def model(self) -> ModelConfig:
        c = self.config
        cells(c)
        enc = trunk(c, ["image"], class_token=True)
        block = {**enc["block"], "residual": {"kind": "layer_scale", "initial": c.layerscale_value}, "dropout": 0.0}
        if c.use_swiglu_ffn:
            block["nonlinearity"] = {"kind": "swiglu", "inner": c.intermediate_size}
        position = self.position(c, class_row=True, antialias=ANTIALIAS[c.model_type])
        enc = {**enc, "registers": self.registers, "position": position, "block": block}
        data: dict[str, Any] = {"streams": {"image": self.stream(c)}, "trunks": {"enc": enc}}
        if self.headed:
            told = classifier(c.id2label, "class_mean")
            data = {**data, "streams": data["streams"] | told["streams"], "heads": told["heads"]}
        return part.decode(ModelConfig, data, "dinov2")

    def rules(self) -> list[Rule]:
        c = self.config
        embeddings, theirs = f"{self.prefix}embeddings", f"{self.prefix}encoder.layer.{{i}}"
        feed = ("weights_in", "weights_out") if c.use_swiglu_ffn else ("fc1", "fc2")
        layers = {**LAYERS, "feed.up": f"mlp.{feed[0]}", "feed.out": f"mlp.{feed[1]}"}
        scales = [
            Rule(f"trunks.enc.blocks.{{i}}.residuals.{place}.weight", f"{theirs}.layer_scale{place + 1}.lambda1")
            for place in (0, 1)
        ]
        convolution = patches(c.patch_size, c.num_channels)
        return [
            self._tokens(embeddings),
            *self._mask(embeddings),
            *affine("trunks.enc.embeds.image", f"{embeddings}.patch_embeddings.projection", convolution),
            table("enc", f"{embeddings}.position_embeddings"),
            *encoder("enc", c.num_hidden_layers, theirs, layers, c.qkv_bias),
            *repeat(c.num_hidden_layers, scales),
            *affine("trunks.enc.norm", f"{self.prefix}layernorm"),
            *(affine("heads.label.projection", "classifier") if self.headed else []),
        ]

    def _tokens(self, embeddings: str) -> Rule:
        """The class token and the registers."""
        names = [f"{embeddings}.cls_token"]
        if REGISTERS[self.config.model_type]:
            names.append(f"{embeddings}.register_tokens")

        def give(ours: list[Tensor]) -> list[Tensor]:
            return [ours[0][None, :1], ours[0][None, 1:]][: len(names)]

        return Rule("trunks.enc.tokens", tuple(names), Op(lambda theirs: [torch.cat(theirs, 1)[0]], give))

    def _mask(self, embeddings: str) -> list[Rule]:
        """The mask token, which is the objective's; of a model that learned without one it is 0, as it is where pretraining begins."""
        if not (self.config.use_mask_token or REGISTERS[self.config.model_type]):
            return []
        width = self.config.hidden_size

        def give(ours: list[Any]) -> list[Tensor]:
            fits = ours[0] is not None and ours[0].shape == (width,)
            return [ours[0][None] if fits else torch.zeros(1, width)]

        op = Op(lambda theirs: [theirs[0][0]], give, True)
        return [Rule("objective.mask_token", f"{embeddings}.mask_token", op)]
