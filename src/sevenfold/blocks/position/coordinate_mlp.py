"""Real coordinates through a small network of two layers, added.

    PE(c) = W2 gelu(W1 (c / unit) + b1) + b2                 c in R^axes

How masked autoencoders of point clouds tell where a group's centre is: Pang 2022 (Point-MAE), arXiv:2203.06604 section
3.2; Point-BERT, arXiv:2111.14819.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.position import Position
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Constant, Normal, Rule


class CoordinateMLP(Position):
    class Config(Position.Config):
        inner: int = Field(128, ge=1, le=1 << 16)
        """Width of the inner layer."""
        unit: float = Field(1.0, gt=0)
        """What coordinates are divided by first: about the size of an item."""

    variants = ({"inner": 16, "unit": 10.0},)

    def __init__(self, config: Any, width: int, axes: int, heads: int | None = None):
        super().__init__(config, width, axes, heads)
        if axes < 1:
            raise ConfigError("position 'coordinate_mlp' needs tokens with coordinates; these have none: choose none")
        self.up = nn.Parameter(torch.empty(config.inner, axes))
        self.up_bias = nn.Parameter(torch.empty(config.inner))
        self.down = nn.Parameter(torch.empty(width, config.inner))
        self.down_bias = nn.Parameter(torch.empty(width))

    def rules(self) -> dict[str, Rule]:
        return {
            "up": Normal(self.axes**-0.5, decays=True),
            "up_bias": Normal(1.0),
            "down": Normal(min(0.02, self.config.inner**-0.5), decays=True),
            "down_bias": Constant(),
        }

    def embed(self, coords: Tensor) -> Tensor:
        inner = F.linear(coords.to(self.up.dtype) / self.config.unit, self.up, self.up_bias)
        return F.linear(F.gelu(inner), self.down, self.down_bias)
