"""Stochastic depth: in training a row skips a branch with a probability that grows with depth.

    x <- x + keep/(1 - p_l) f(x),   keep ~ Bernoulli(1 - p_l) per row,   p_l = p (l + 1)/L

Huang 2016, arXiv:1603.09382. DeiT, DINOv2, ConvNeXt. Nothing is dropped in evaluation.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.blocks.residual import Branch, Residual


class DropPath(Residual):
    class Config(Residual.Config):
        drop: float = Field(0.1, ge=0, lt=1)
        """The probability p at the last block."""

    variants = ({"drop": 0.5},)

    def forward(self, x: Tensor, branch: Branch, condition: Tensor | None = None) -> Tensor:
        y = branch(x)
        drop = self.config.drop * (self.index + 1) / self.depth
        if not self.training or drop == 0:
            return x + y
        keep = torch.rand(len(x), *([1] * (x.dim() - 1)), device=x.device) >= drop
        return x + y * keep / (1 - drop)
