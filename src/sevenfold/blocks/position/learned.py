"""A learned table per axis, looked up and added.

    x_i <- x_i + sum_axis T_axis[coord_axis(i)]           T ~ N(0, 0.02^2)

Gehring 2017, arXiv:1705.03122 section 3.1. GPT-2, BERT, ViT (one axis: the index of the joined tokens), factorised for
pictures. Does not extrapolate: coordinates outside the table are an error.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.position import Position
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Normal, Rule


class Learned(Position):
    class Config(Position.Config):
        size: int = Field(1024, ge=1, le=1 << 24)
        """Rows of each axis' table: coordinates 0 … size-1."""

    variants = ({"size": 64},)

    def __init__(self, config: Any, width: int, axes: int, heads: int | None = None):
        super().__init__(config, width, axes, heads)
        if axes < 1:
            raise ConfigError("position 'learned' needs tokens with coordinates; these have none: choose none")
        self.tables = nn.Parameter(torch.empty(axes, config.size, width))

    def rules(self) -> dict[str, Rule]:
        return {"tables": Normal(0.02)}

    @property
    def reach(self) -> int:
        return self.config.size

    def embed(self, coords: Tensor) -> Tensor:
        self.check_reach(coords, "learned table")
        places = coords.long()
        found = [F.embedding(places[..., axis], table) for axis, table in enumerate(self.tables)]
        return found[0] if len(found) == 1 else torch.stack(found).sum(0)
