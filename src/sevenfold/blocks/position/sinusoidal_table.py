"""Fixed sines and cosines as a table, whose frequencies reach from 1 to 1/base with both ends; looked up and added.

    T(p) = [sin(p w_0) … sin(p w_k) | cos(p w_0) … cos(p w_k)],   w_i = base^(-i/k)

Vaswani 2017, arXiv:1706.03762 section 3.5, as its authors' code has it; Whisper, arXiv:2212.04356. The table is never
trained, and is kept with the weights: published ones bring their own, rounded as it was there.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from sevenfold.blocks.position import Position, one_axis
from sevenfold.core.errors import ConfigError


class SinusoidalTable(Position):
    class Config(Position.Config):
        size: int = Field(1024, ge=1, le=1 << 24)
        """Rows: coordinates 0 … size-1."""
        base: float = Field(10000.0, gt=1)
        """The longest wavelength is 2 pi base."""

    variants = ({"size": 64},)
    table: Tensor

    def __init__(self, config: Any, width: int, axes: int, heads: int | None = None):
        super().__init__(config, width, axes, heads)
        one_axis(self)
        if width % 2 or width < 4:
            raise ConfigError(f"position 'sinusoidal_table': width {width} is odd, or too narrow for two frequencies")
        steps = torch.arange(width // 2, dtype=torch.float64) / (width // 2 - 1)
        angle = torch.arange(config.size, dtype=torch.float64)[:, None] * config.base**-steps
        self.register_buffer("table", torch.cat([angle.sin(), angle.cos()], dim=1).float())

    @property
    def reach(self) -> int:
        return self.config.size

    def embed(self, coords: Tensor) -> Tensor:
        self.check_reach(coords, "table")
        return F.embedding(coords[..., 0].long(), self.table)
