"""Attention along the columns of a grid of tokens: between the sequences of an alignment, down the lines of a picture.

    y_si = sigmoid(x_si W_g + b_g) * sum_t softmax_t(q_si . k_ti / sqrt(d_h)) v_ti,   out = y W_o

s and t count rows, i columns. Jumper 2021, doi:10.1038/s41586-021-03819-2, supplement, algorithm 8; axial attention, Ho 2019,
arXiv:1912.12180. Evoformer; without the gate MSA Transformer. Cost O(rows^2 columns d).
"""

from __future__ import annotations

from torch import Tensor

from sevenfold.blocks.mixing._gated import Gated


class ColumnAttention(Gated):
    class Config(Gated.Config):
        pass

    needs = frozenset({"grid"})
    narrow = True
    variants = ({"heads": 3, "head_width": 10},)

    def _lines(self, part: Tensor, grid: tuple[int, int] | None) -> Tensor:
        assert grid is not None, "a trunk gives its grid"
        return part.unflatten(1, grid).transpose(1, 2).flatten(0, 1)

    def _whole(self, part: Tensor, grid: tuple[int, int] | None) -> Tensor:
        assert grid is not None
        return part.unflatten(0, (-1, grid[1])).transpose(1, 2).flatten(1, 2)

    def attended(self, tokens: int, grid: tuple[int, int] | None = None) -> int:
        return tokens if grid is None else grid[0]

    def kept(self, tokens: int, attended: int) -> int:
        return super().kept(tokens, attended) + tokens * self.width
