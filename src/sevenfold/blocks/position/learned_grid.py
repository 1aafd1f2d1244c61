"""A learned table over a grid of places, stretched to the grid that pictures have, looked up and added.

    x_rc <- x_rc + T'[r, c],   T' = bicubic(T, rows x columns),   x_class <- x_class + T_class

DINOv2 arXiv:2304.07193, with registers arXiv:2309.16588; I-JEPA arXiv:2301.08243, SigLIP arXiv:2303.15343, ViT, CLIP. The
kernel is that of Keys 1981, doi:10.1109/TASSP.1981.1163711. On the table's own grid nothing is interpolated. A token's
place decides alone what is added, so some patches may be hidden; a place outside of the grid is an error.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sevenfold.blocks.position import Position
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.initial import Normal, Rule
from sevenfold.core.types import wide


class LearnedGrid(Position):
    class Config(Position.Config):
        table: tuple[int, int] = (14, 14)
        """Rows and columns of the table: the grid of patches that it is learned on."""
        grid: tuple[int, int] | None = None
        """Rows and columns of patches that pictures have, where these are others: the table is stretched to them."""
        antialias: bool = False
        """Blur the table first where it is shrunk (DINOv2 with registers)."""
        class_row: bool = False
        """Whether the class token, which stands nowhere, has a row of its own."""

    variants = (
        {"table": [5, 5], "grid": [8, 8], "class_row": True},
        {"table": [9, 7], "grid": [4, 4], "antialias": True},
    )

    def __init__(self, config: Any, width: int, axes: int, heads: int | None = None):
        super().__init__(config, width, axes, heads)
        if axes != 2:
            raise ConfigError(
                f"position 'learned_grid' reads rows and columns, and this trunk's tokens have {axes} axes: choose learned"
            )
        self.rows, self.columns = config.grid or config.table
        for field, sides in (("table", config.table), ("grid", (self.rows, self.columns))):
            if not all(1 <= side <= 4096 for side in sides):
                raise ConfigError(f"position.{field}: {list(sides)} are no numbers of rows and columns from 1 to 4096")
        self.table = nn.Parameter(torch.empty(config.table[0] * config.table[1], width))
        self.first = nn.Parameter(torch.empty(width)) if config.class_row else None

    def rules(self) -> dict[str, Rule]:
        return {name: Normal(0.02) for name in self.own_parameters()}

    @property
    def reach(self) -> int:
        return max(self.rows, self.columns)

    def class_row(self) -> Tensor | None:
        return self.first

    def stretched(self) -> Tensor:
        """The table on the pictures' grid, [rows*columns width]."""
        if (self.rows, self.columns) == tuple(self.config.table):
            return self.table
        plane = wide(self.table).unflatten(0, self.config.table).movedim(-1, 0)[None]
        sides, blur = (self.rows, self.columns), self.config.antialias
        plane = F.interpolate(plane, sides, mode="bicubic", align_corners=False, antialias=blur)
        return plane[0].flatten(1).T.to(self.table.dtype)

    def embed(self, coords: Tensor) -> Tensor:
        sides = torch.tensor([self.rows, self.columns], device=coords.device)
        if not torch.compiler.is_compiling() and ((coords < 0) | (coords >= sides)).any():
            raise DataError(
                f"a patch stands at row {coords[..., 0].max():g}, column {coords[..., 1].max():g}, outside of the grid of "
                f"{self.rows} by {self.columns} patches: resize the pictures (streams.….resize) or set position.grid"
            )
        places = coords.long()
        return F.embedding(places[..., 0] * self.columns + places[..., 1], self.stretched())
