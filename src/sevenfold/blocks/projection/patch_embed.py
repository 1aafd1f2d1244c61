"""Continuous tokens (flattened patches, feature vectors) to the model's width.

    y = W x + b                         x in R^(P*P*C), W ~ N(0, 1/width_in)

A convolution with kernel = stride = patch, written as the matrix product that it is. ViT, arXiv:2010.11929 eq. 1;
ViT-MAE, CLIP, DINOv2.
"""

from __future__ import annotations

from typing import Any

from sevenfold.blocks.projection.linear import Linear


class PatchEmbed(Linear):
    class Config(Linear.Config):
        bias: bool = True
        """Whether b is there."""

    variants = ({"bias": False}, {"std": 0.02})

    def __init__(self, config: Any, width_in: int, width_out: int):
        super().__init__(config.replace(std=config.std or width_in**-0.5), width_in, width_out)
