"""A learned table over a grid, stretched over the grid of each picture: bilinear between its rows and columns.

    x_rc <- x_rc + T[r (R-1)/(h-1), c (C-1)/(w-1)]        a picture of h x w tokens, a table of R x C; corners on corners

Kim 2021 (ViLT), arXiv:2102.03334 section 4.1, after Dosovitskiy 2020 (ViT), arXiv:2010.11929 section 3.2. h and w are one
more than a row's largest coordinates, so pictures must be there as a whole. ViLT.
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


class Stretched(Position):
    class Config(Position.Config):
        rows: int = Field(14, ge=1, le=1 << 14)
        """R, of the pictures that most were like."""
        columns: int = Field(14, ge=1, le=1 << 14)
        """C, likewise."""
        class_row: bool = False
        """Whether the class token, which stands nowhere, has a row of its own."""

    variants = ({"rows": 3, "columns": 5}, {"rows": 1, "columns": 4, "class_row": True})

    def __init__(self, config: Any, width: int, axes: int, heads: int | None = None):
        super().__init__(config, width, axes, heads)
        if axes != 2:
            raise ConfigError(f"position 'stretched' is of tokens in a grid, with two axes; these have {axes}")
        self.table = nn.Parameter(torch.empty(config.rows * config.columns, width))
        self.first = nn.Parameter(torch.empty(width)) if config.class_row else None

    def rules(self) -> dict[str, Rule]:
        return {name: Normal(0.02) for name in self.own_parameters()}

    def class_row(self) -> Tensor | None:
        return self.first

    def embed(self, coords: Tensor) -> Tensor:
        rows, columns = self.config.rows, self.config.columns
        last = coords.amax(1, keepdim=True).clamp(min=1)
        reach = torch.tensor([rows - 1, columns - 1], device=coords.device)
        place = coords.clamp(min=0) * reach / last.double()
        low = place.long().minimum(reach)
        high, part = (low + 1).minimum(reach), (place - low).to(self.table.dtype)[..., None]

        def at(row: Tensor, column: Tensor) -> Tensor:
            return F.embedding(row * columns + column, self.table)

        top = torch.lerp(at(low[..., 0], low[..., 1]), at(low[..., 0], high[..., 1]), part[..., 1, :])
        bottom = torch.lerp(at(high[..., 0], low[..., 1]), at(high[..., 0], high[..., 1]), part[..., 1, :])
        return torch.lerp(top, bottom, part[..., 0, :])
