"""Attention along the rows of a grid of tokens: within each sequence of an alignment, within each line of a picture.

    y_si = sigmoid(x_si W_g + b_g) * sum_j softmax_j(q_si . k_sj / sqrt(d_h) + norm(z_ij) W_b) v_sj,   out = y W_o

s counts rows, i and j columns; z_ij, the pair of columns i and j, is there where the trunk has a pair. Jumper 2021,
doi:10.1038/s41586-021-03819-2, supplement, algorithm 7; axial attention, Ho 2019, arXiv:1912.12180. Evoformer; without the pair
and the gate MSA Transformer. With `column_attention` in turn every token reaches every other. Cost O(rows columns^2 d).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from sevenfold.blocks.mixing import Project
from sevenfold.blocks.mixing._gated import Gated


class RowAttention(Gated):
    class Config(Gated.Config):
        pair_width: int | None = Field(None, ge=1)
        """Width of the pair representation of columns that biases the scores; by default that of the trunk's, if it has
        one."""

    needs = frozenset({"grid"})
    narrow = True
    variants = ({"heads": 3, "head_width": 10, "pair_width": 20},)

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project, config.pair_width)

    def _lines(self, part: Tensor, grid: tuple[int, int] | None) -> Tensor:
        assert grid is not None, "a trunk gives its grid"
        return part.unflatten(1, grid).flatten(0, 1)

    def _whole(self, part: Tensor, grid: tuple[int, int] | None) -> Tensor:
        assert grid is not None
        return part.unflatten(0, (-1, grid[0])).flatten(1, 2)

    def attended(self, tokens: int, grid: tuple[int, int] | None = None) -> int:
        return tokens if grid is None else grid[1]
