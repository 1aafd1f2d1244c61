"""Fixed sines and cosines of geometrically spaced frequencies, added; the width is shared out among the axes.

    PE(p) = [sin(p w_0) … sin(p w_k) | cos(p w_0) … cos(p w_k)],   w_i = base^(-i/(k+1)),   one such part per axis

PE(p+k) is a linear map (a rotation) of PE(p). The last axis comes first (column, then row), as in the published weights
of ViT-MAE, arXiv:2111.06377; Vaswani 2017, arXiv:1706.03762 section 3.5. Computed in float64, given in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.blocks.position import Position
from sevenfold.core.errors import ConfigError


class Sinusoidal(Position):
    class Config(Position.Config):
        base: float = Field(10000.0, gt=1)
        """The longest wavelength is 2 pi base."""

    def __init__(self, config: Any, width: int, axes: int, heads: int | None = None):
        super().__init__(config, width, axes, heads)
        if axes and width % (2 * axes):
            raise ConfigError(f"position 'sinusoidal': width {width} is not a multiple of {2 * axes} (2 x {axes} axes)")

    def embed(self, coords: Tensor) -> Tensor | None:
        if not self.axes:
            return None
        half = self.width // (2 * self.axes)
        steps = torch.arange(half, dtype=torch.float64, device=coords.device) / half
        angle = coords.flip(-1).double().unsqueeze(-1) * self.config.base**-steps  # [b n c half]
        return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2).float()
