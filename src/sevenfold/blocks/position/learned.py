"""A learned table per axis, looked up and added.

    x_i <- x_i + sum_axis T_axis[coord_axis(i)]           T ~ N(0, 0.02^2)

GPT-2, BERT, ViT (one axis: the index of the joined tokens), factorised for pictures. Does not extrapolate: coordinates
outside the table are an error.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.position import Position


class Learned(Position):
    class Config(Position.Config):
        size: int = Field(1024, ge=1, le=1 << 24)
        """Rows of each axis' table: coordinates 0 … size-1."""

    def __init__(self, config: Any, width: int, axes: int):
        super().__init__(config, width, axes)
        self.tables = nn.Parameter(torch.empty(axes, config.size, width))
        nn.init.normal_(self.tables, std=0.02)

    def embed(self, coords: Tensor) -> Tensor:
        torch._assert_async(
            ((coords >= 0) & (coords < self.config.size)).all(),
            f"a token's position lies outside the learned table of {self.config.size} rows: "
            "cut the items (streams.….length) or raise position.size",
        )
        places = coords.long()
        return torch.stack([F.embedding(places[..., axis], table) for axis, table in enumerate(self.tables)]).sum(0)
