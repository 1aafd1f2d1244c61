"""Rotary over time, row and column at once: each frequency follows one of the three coordinates.

    angle_i = coord_{a(i)} w_i,   w_i = base^(-2i/d);   a(i) by sections, or in turn (interleaved)

With one axis all three coordinates are the same and it is plain rotary, so text keeps what it learned. Wang 2024
(Qwen2-VL), arXiv:2409.12191 section 2.1; interleaved: Qwen3-VL.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from sevenfold.blocks.position import Position
from sevenfold.blocks.position.scaling import plain
from sevenfold.core.errors import ConfigError


class MultimodalRotary(Position):
    class Config(Position.Config):
        base: float = Field(10000.0, gt=1)
        """The longest wavelength is about 2 pi base."""
        sections: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
        """Pairs of a head that follow time, row and column, adding up to half its width; by default in proportion
        16 : 24 : 24, interleaved 24 : 20 : 20."""
        interleaved: bool = False
        """Rows and columns in turn among the frequencies (every third one, so at most a third each; time has the rest) instead
        of section after section."""

    variants = ({"interleaved": True},)

    def __init__(self, config: Any, width: int, axes: int, heads: int | None = None):
        super().__init__(config, width, axes, heads)
        if axes not in (1, 3):
            raise ConfigError(
                f"position 'multimodal_rotary' reads one axis, or time, row and column, and this trunk's tokens have {axes}: "
                "choose axial_rotary"
            )

    def angles(self, coords: Tensor, width: int) -> tuple[Tensor, Tensor]:
        pairs = width // 2
        found = plain(pairs, self.config.base).to(coords.device)
        places = coords.double().expand(*coords.shape[:2], 3)[..., self._axes(pairs, coords.device)]
        angle = places * found
        return angle.cos().float(), angle.sin().float()

    def _axes(self, pairs: int, device: Any) -> Tensor:
        """Which coordinate each frequency follows, [pairs]."""
        share = (5 if self.config.interleaved else 6) * pairs // 16
        time, row, column = self.config.sections or (pairs - 2 * share, share, share)
        if time + row + column != pairs or min(time, row, column) < 1:
            raise ConfigError(
                f"position 'multimodal_rotary': sections {[time, row, column]} for heads of {pairs} pairs: they must add up"
            )
        if not self.config.interleaved:
            return torch.repeat_interleave(torch.arange(3), torch.tensor([time, row, column])).to(device)
        axes = torch.zeros(pairs, dtype=torch.long)
        axes[1 : 3 * row : 3], axes[2 : 3 * column : 3] = 1, 2
        return axes.to(device)
