"""The plain number of the place, on channels of its own axis.

    PE(p) = p / unit     on each of the axis' width/axes channels

The simplest thing that tells places apart, and it is not bounded: kept as the contrast that the others are measured
against. Graves 2013, arXiv:1308.0850 feeds coordinates in this way.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.blocks.position import Position
from sevenfold.core.errors import ConfigError


class Index(Position):
    class Config(Position.Config):
        unit: float = Field(100.0, gt=0)
        """Places that make 1."""

    def __init__(self, config: Any, width: int, axes: int, heads: int | None = None):
        super().__init__(config, width, axes, heads)
        if not 1 <= axes <= width:
            raise ConfigError(
                f"position 'index': {axes} axes in a width of {width}: it needs 1 to as many: choose none"
            )

    def embed(self, coords: Tensor) -> Tensor:
        share = [self.width // self.axes + (axis < self.width % self.axes) for axis in range(self.axes)]
        parts = [coords[..., axis : axis + 1].float().expand(-1, -1, count) for axis, count in enumerate(share)]
        return torch.cat(parts, -1) / self.config.unit
