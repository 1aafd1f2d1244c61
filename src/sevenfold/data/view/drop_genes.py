"""A cell in which some genes were not seen.

    y_g = 0 with probability p, otherwise x_g;   at least one gene that is expressed stays

Random masking as in CLEAR (Han 2022, doi:10.1093/bib/bbac377), a contrast of cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.cell import Cell
from sevenfold.data.view import View
from sevenfold.data.view._items import cell_of


class DropGenes(View):
    """Cell → Cell of fewer genes."""

    class Config(View.Config):
        rate: float = Field(0.2, ge=0, lt=1)
        """p, the share of genes that are not seen."""

    modalities = ("cells",)

    def __call__(self, raw: Any, generator: np.random.Generator) -> Cell:
        cell = cell_of(self, raw)
        counts, at = np.asarray(cell.counts), np.asarray(cell.at)
        kept = (generator.random(len(counts)) >= self.config.rate) & (counts > 0)
        if not kept.any():
            kept = counts > 0
            kept[generator.permutation(np.flatnonzero(kept))[1:]] = False
        return Cell(cell.genes, at[kept], counts[kept])
