"""Times (real numbers, in any unit) as smooth features of many periods, mixed by a small network and added.

    PE(t) = W2 silu(W1 [cos(t w_0) … | sin(t w_0) …] + b1),    w_i = (2 pi / shortest) (shortest / longest)^(i/k)

Diffusion's time embedding: Ho 2020, arXiv:2006.11239 appendix B; DiT, arXiv:2212.09748. For events at irregular times,
several rates in one stream, and steps of a process. Several axes are several times, added.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.position import Position
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Constant, Normal, Rule


class Time(Position):
    class Config(Position.Config):
        shortest: float = Field(2 * math.pi, gt=0)
        """The shortest period, in the unit of the coordinates."""
        longest: float = Field(2 * math.pi * 10000, gt=0)
        """The longest period: choose it longer than a sequence lasts."""
        features: int = Field(64, ge=2, le=4096)
        """How many sines and cosines; even."""

    variants = ({"shortest": 0.1, "longest": 50.0, "features": 16},)

    def __init__(self, config: Any, width: int, axes: int, heads: int | None = None):
        super().__init__(config, width, axes, heads)
        if axes < 1:
            raise ConfigError("position 'time' needs tokens with coordinates; these have none: choose none")
        if config.features % 2 or config.longest <= config.shortest:
            raise ConfigError("position 'time': features is even, and longest is longer than shortest")
        self.up = nn.Parameter(torch.empty(axes, width, config.features))
        self.up_bias = nn.Parameter(torch.empty(axes, width))
        self.down = nn.Parameter(torch.empty(axes, width, width))

    def rules(self) -> dict[str, Rule]:
        return {
            "up": Normal(self.config.features**-0.5, decays=True),
            "up_bias": Constant(),
            "down": Normal(min(0.02, self.width**-0.5), decays=True),
        }

    def waves(self, coords: Tensor) -> Tensor:
        """coords [b n c] → [b n c features], made in float64."""
        half = self.config.features // 2
        steps = torch.arange(half, dtype=torch.float64, device=coords.device) / half
        found = 2 * math.pi / self.config.shortest * (self.config.shortest / self.config.longest) ** steps
        angle = coords.double().unsqueeze(-1) * found
        return torch.cat([angle.cos(), angle.sin()], -1).to(self.up.dtype)

    def embed(self, coords: Tensor) -> Tensor:
        inner = F.silu(torch.einsum("bncf,cdf->bncd", self.waves(coords), self.up) + self.up_bias)
        return torch.einsum("bncd,ced->bne", inner, self.down)
