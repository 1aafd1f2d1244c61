"""A cell as it would be if it had been sequenced less deeply: each count is kept with a probability of the cell's own.

    y_g ~ Binomial(x_g, p),   p ~ U(share)

Counts of a Poisson experiment thinned in this way are those of a shallower one: Sarkar 2021, doi:10.1038/s41588-021-00873-4;
Neufeld 2022 (count splitting), arXiv:2207.00554 section 3. Counts that are no whole numbers are first rounded up or down, up with
the probability of what is behind the point. Of a cell that would lose all, one count of its strongest gene is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sevenfold.core.cell import Cell
from sevenfold.data.view import View
from sevenfold.data.view._items import cell_of
from sevenfold.data.view._ranges import Shares


class Thin(View):
    """Cell → Cell of whole counts, none of them 0."""

    class Config(View.Config):
        share: Shares = (0.5, 0.8)
        """The least and the largest p, the share of counts that are kept."""

    modalities = ("cells",)

    def __call__(self, raw: Any, generator: np.random.Generator) -> Cell:
        cell = cell_of(self, raw)
        counts = np.asarray(cell.counts)
        whole = np.floor(counts)
        over = counts - whole
        if over.any():
            whole = whole + (generator.random(len(counts)) < over)
        thinned = generator.binomial(whole.astype(np.int64), generator.uniform(*self.config.share))
        kept = np.flatnonzero(thinned)
        if not len(kept) and len(counts):
            kept = np.array([int(counts.argmax())])
            thinned[kept] = 1
        kind = counts.dtype if counts.dtype.kind == "f" else np.int64
        return Cell(cell.genes, np.asarray(cell.at)[kept], thinned[kept].astype(kind))
