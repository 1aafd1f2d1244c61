"""ViT-MAE: a vision transformer on the visible quarter of the patches, and a light one that rebuilds the others.

    encoder: [c, W p_visible + PE];  decoder: [B z_c, B z_visible + PE, m + PE];  PE fixed sines and cosines

He 2021, arXiv:2111.06377 section 3, sizes from its appendix. Weights: huggingface.co/facebook/vit-mae-base. Objective:
{kind: mae, encoder: enc, decoder: dec, patch_norm: true}, whose mask token m is among the weights.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Batch
from sevenfold.family import Rule, affine, constant, lead
from sevenfold.family._pictures import IMAGENET, Pictures, cells, encoder
from sevenfold.family.vit import LAYERS, VisionConfig, embedding, trunk


class ViTMAE(Pictures):
    class Config(VisionConfig):
        model_type: Literal["vit_mae"] = "vit_mae"
        """Which published config this is."""
        decoder_hidden_size: int = Field(512, ge=1, le=1 << 16)
        """Width of the decoder."""
        decoder_num_hidden_layers: int = Field(8, ge=1, le=4096)
        """Blocks of the decoder."""
        decoder_num_attention_heads: int = Field(16, ge=1, le=4096)
        """Heads of the decoder."""
        decoder_intermediate_size: int = Field(2048, ge=1)
        """Inner width of the decoder's feed-forward part."""
        mask_ratio: float = Field(0.75, gt=0, lt=1)
        """Share of the patches hidden (`ratio` of the objective)."""
        norm_pix_loss: bool = False
        """Whether target patches are standardised (`patch_norm` of the objective)."""

    sizes = {
        "base": {},
        "large": {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
        },
        "huge": {
            "hidden_size": 1280,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "intermediate_size": 5120,
            "patch_size": 14,
        },
    }
    colours = IMAGENET
    states = {"enc": "hidden_states"}
    objective = {"kind": "mae", "encoder": "enc", "decoder": "dec", "patch_norm": True}
    spellings = [(r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers.")]

    def model(self) -> ModelConfig:
        c = self.config
        if c.hidden_size == c.decoder_hidden_size:
            raise ConfigError("vit_mae: encoder and decoder of equal widths have no map between them here")
        cells(c)
        position = {"position": {"kind": "sinusoidal"}}
        enc = {**trunk(c, ["image"], class_token=True), **position}
        dec = {**trunk(c, ["enc"], "decoder_"), **position}
        head = {"trunk": "dec", "stream": "image", "projection": {"kind": "linear", "bias": True}}
        data = {"streams": {"image": self.stream(c)}, "trunks": {"enc": enc, "dec": dec}, "heads": {"image": head}}
        return part.decode(ModelConfig, data, "vit_mae")

    def rules(self) -> list[Rule]:
        c = self.config
        return [
            *embedding(c),
            Rule((), "vit.embeddings.position_embeddings", constant(lambda: self._places(c.hidden_size))),
            *encoder("enc", c.num_hidden_layers, "vit.encoder.layer.{i}", LAYERS, c.qkv_bias),
            *affine("trunks.enc.norm", "vit.layernorm"),
            *affine("trunks.dec.embeds.enc", "decoder.decoder_embed"),
            Rule("objective.mask_token", "decoder.mask_token", lead(2)),
            Rule((), "decoder.decoder_pos_embed", constant(lambda: self._places(c.decoder_hidden_size))),
            *encoder("dec", c.decoder_num_hidden_layers, "decoder.decoder_layers.{i}", LAYERS, c.qkv_bias),
            *affine("trunks.dec.norm", "decoder.decoder_norm"),
            *affine("heads.image.projection", "decoder.decoder_pred"),
        ]

    def trial(self, model: Model) -> tuple[Batch, dict[str, Any]]:
        """The first patches are visible: the reference shows those of the least noise."""
        batch, given = super().trial(model)
        patches = batch["image"].values.shape[1]
        given["noise"] = torch.arange(patches).expand(2, -1) / patches
        return {"image": batch["image"].slice(0, int(patches * (1 - self.config.mask_ratio)))}, given

    def _places(self, width: int) -> Tensor:
        """The fixed table [1 1+n width]: zeros for the class token, then each patch's sines and cosines."""
        side = torch.arange(cells(self.config))
        grid = torch.cartesian_prod(side, side)[None]
        table = part.find("position", "sinusoidal").Config().build(width, 2).embed(grid)
        return torch.cat([torch.zeros(1, 1, width), table], 1)
