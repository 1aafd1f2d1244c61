"""Rank-value encoding: a cell is the list of its genes, the most unusually strong one first.

    x_g = 10,000 c_g / sum c / m_g;   z = known genes with c_g > 0 by falling x_g, ties in the order of names

m_g is the median of 10,000 c_g / sum c over the training cells that express g. Only the order is kept, so a cell
sequenced twice as deep is the same tokens. Ids: pad, mask, bos, eos, then genes; coordinates are ranks 0, 1, 2 …
Theodoris 2023 (Geneformer), doi:10.1038/s41586-023-06139-9, Methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import check_ready, line
from sevenfold.blocks.tokenization._genes import GeneTokenizer
from sevenfold.core.cell import Cell
from sevenfold.core.types import Tokens


class GeneRank(GeneTokenizer):
    """Cell → ids [n]; decodes to a Cell in which each gene has the strength that is usual at its rank."""

    class Config(GeneTokenizer.Config):
        most: int = Field(2048, ge=1, le=1 << 20)
        """The most genes of a cell; weaker ones are cut."""

    first = 4

    def __init__(self, config: Any):
        super().__init__(config)
        self.specials = {"pad": 0, "mask": 1, "bos": 2, "eos": 3}
        self.curve = np.zeros(0)
        """The mean of x_g at each rank of the training cells, falling, [ranks] float64."""

    def adopt(self, names: Sequence[str], medians: np.ndarray) -> None:
        super().adopt(names, medians)
        self.size = self.first + len(names)

    def learn(self, cells: Sequence[Cell]) -> None:
        sums, times = np.zeros(self.config.most), np.zeros(self.config.most)
        for cell in cells:
            at, x = self._known(cell, self.genes)
            strength = np.sort(x / self.medians[at])[::-1][: self.config.most]
            sums[: len(strength)] += strength
            times[: len(strength)] += 1
        ranks = int((times > 0).sum())
        self.curve = np.minimum.accumulate(sums[:ranks] / times[:ranks])

    def encode(self, raw: Any) -> Tokens:
        at, x = self.known(raw)
        order = np.argsort(-(x / self.medians[at]), kind="stable")[: self.config.most]
        return Tokens(self.first + at[order], line(len(order)))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> Cell:
        check_ready(self)
        ids = np.asarray(values, np.int64)
        at = ids[ids >= self.first] - self.first
        _, once = np.unique(at, return_index=True)
        at = at[np.sort(once)]
        ranks = np.arange(len(at))
        usual = self.curve[ranks.clip(max=len(self.curve) - 1)] * (1 - 1e-7) ** ranks
        return Cell(self.genes, at, usual * self.medians[at])

    def piece(self, id: int) -> str:
        return self.genes.names[id - self.first] if self.first <= id < (self.size or 0) else super().piece(id)

    def record(self) -> dict[str, Any]:
        return {"curve": self.curve.tolist()}

    def relearn(self, record: dict[str, Any]) -> None:
        self.curve = np.array(record["curve"], np.float64)
        if self.curve.ndim != 1 or not len(self.curve) or not (np.isfinite(self.curve) & (self.curve > 0)).all():
            raise ValueError
