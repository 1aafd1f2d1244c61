"""Tokens tell their pair: the outer product of two projections of tokens i and j, averaged over the rows of a grid.

    u_ij = (sum_s a_si (x) b_sj) W_o / count_ij,   [a b] = norm(x) W,   count_ij = max(1, rows s in which both are valid)

Without a grid there is one row. The bias of W_o, if it has one, is divided by the count too, as in the released code (the
supplement divides first). Jumper 2021, doi:10.1038/s41586-021-03819-2, supplement, algorithm 10. Evoformer, AlphaFold 3, ESMFold2.
Cost O(rows n^2 c^2 + n^2 c^2 p), memory n^2 c^2.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.mixing import Mixer, Project
from sevenfold.core.initial import Constant, Rule
from sevenfold.core.types import Hidden, Mask, wide


class OuterProductMean(Mixer):
    class Config(Mixer.Config):
        inner: int = Field(16, ge=1, le=1024)
        """Channels c of each factor."""
        token_width: int | None = Field(None, ge=1)
        """Width of the tokens; by default that of the trunk's."""

    pairs = True
    continues = False
    variants = ({"inner": 5},)

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.token_width = config.token_width or width
        self.norm = nn.LayerNorm(self.token_width)
        self.factors = self.project(self.token_width, 2 * config.inner)
        self.out = self.project(config.inner**2, width)

    def rules(self) -> dict[str, Rule]:
        return {"norm.weight": Constant(1.0), "norm.bias": Constant(0.0)}

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        factors = self.factors(self.norm(hidden.x))
        grid, count = hidden.grid or (1, hidden.x.shape[1]), None
        if hidden.valid is not None:
            factors = factors * hidden.valid.unsqueeze(-1)
            with torch.autocast(factors.device.type, enabled=False):  # bf16 counts to 256
                there = wide(hidden.valid.unflatten(1, grid))
                count = (there.transpose(1, 2) @ there).clamp(min=1).unsqueeze(-1)
        a, b = factors.unflatten(1, grid).chunk(2, dim=-1)  # [b s n c]
        outer = a.flatten(2).transpose(1, 2) @ b.flatten(2)  # [b nc nc]
        c, n = self.config.inner, grid[1]
        outer = outer.unflatten(2, (n, c)).unflatten(1, (n, c)).transpose(2, 3).flatten(3)
        return self.out(outer) / (grid[0] if count is None else count.to(outer.dtype))

    def flops(self, tokens: int, attended: int) -> int:
        n, c = attended, self.config.inner
        return 4 * tokens * self.token_width * c + 2 * c * c * n * (tokens + n * self.width)

    def kept(self, tokens: int, attended: int) -> int:
        c = self.config.inner
        return attended**2 * c * c + tokens * (self.token_width + 2 * c + 2)

    def cached(self, tokens: int) -> int:
        return 0
