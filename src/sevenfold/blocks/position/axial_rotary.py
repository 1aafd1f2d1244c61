"""Rotary in several dimensions: a head's pairs are shared out among the axes, each turned by its own coordinate.

    pairs of axis a:  angle = coord_a w_i,   w_i = base^(-i/pairs_a);   scores depend on coordinate differences only

Axes that a stream does not have stand at 0, so text and picture tokens live together in one trunk. Rotary in the
plane: EVA-02, arXiv:2303.11331; DINOv3; Pixtral, arXiv:2410.07073. Pairs that cannot be shared out are not turned.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.blocks.position import Position
from sevenfold.core.errors import ConfigError


class AxialRotary(Position):
    class Config(Position.Config):
        base: float = Field(100.0, gt=1)
        """The longest wavelength of each axis is about 2 pi base; grids are short, so it is small."""

    def __init__(self, config: Any, width: int, axes: int, heads: int | None = None):
        super().__init__(config, width, axes, heads)
        if axes < 1:
            raise ConfigError("position 'axial_rotary' needs tokens with coordinates; these have none: choose none")

    def angles(self, coords: Tensor, width: int) -> tuple[Tensor, Tensor]:
        pairs = width // 2 // self.axes
        if pairs < 1:
            raise ConfigError(f"position 'axial_rotary': heads of width {width} are too narrow for {self.axes} axes")
        steps = torch.arange(pairs, dtype=torch.float64, device=coords.device) / pairs
        angle = (coords.double().unsqueeze(-1) * self.config.base**-steps).flatten(-2)  # [b n c*pairs]
        angle = torch.nn.functional.pad(angle, (0, width // 2 - angle.shape[-1]))
        return angle.cos().float(), angle.sin().float()
