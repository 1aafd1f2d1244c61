"""Binned counts: how strong each gene is among those of its cell, in one of B classes.

    z_g = 1 + floor((B - 2) r_g / (k - 1)),   r_g = 0 … k-1: the place of gene g among the k expressed ones, weakest first

With no ties this is the number of the B - 1 quantiles (of the cell's values that are not 0) that x_g reaches, so bins
are relative to the cell and depth makes no difference. Equal counts are put in a random order, the same whenever the
same cell is read. Ids are bins 0 (not expressed) … B-1, then pad and mask; the coordinate is the gene's number: with
`position: {kind: learned, size: GENES}` a token is the sum of an embedding of the gene and one of the bin, and
masked_token hides bins and asks for them. Cui 2024 (scGPT), doi:10.1038/s41592-024-02201-0, Methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import check_ready
from sevenfold.blocks.tokenization._genes import GeneTokenizer, cell_of
from sevenfold.core.cell import Cell
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens


class GeneBin(GeneTokenizer):
    """Cell → ids [n], coords [n 1] gene numbers; decodes to a Cell whose values are bins (only their order is known)."""

    class Config(GeneTokenizer.Config):
        bins: int = Field(51, ge=3, le=65536)
        """B, bin 0 included."""
        zeros: bool = False
        """Whether all known genes are tokens of every cell, those that it does not express of bin 0; `most` is not heeded."""
        seed: int = Field(0, ge=0, lt=2**32)
        """Of the order of equal counts."""

    variants = ({"zeros": True}, {"bins": 5})
    coords_tell = True

    def adopt(self, names: Sequence[str], medians: np.ndarray) -> None:
        super().adopt(names, medians)
        self.specials = {"pad": self.config.bins, "mask": self.config.bins + 1}
        self.size = self.config.bins + 2

    def reach(self) -> int | None:
        return len(self.genes) or None

    def layout(self) -> np.ndarray | None:
        return np.arange(len(self.genes))[:, None] if self.config.zeros and len(self.genes) else None

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        if self.config.zeros and not cell_of(raw).counts.any():
            at, bins = np.zeros(0, np.int64), np.zeros(0, np.int64)
        else:
            at, x = self.known(raw)
            at, x = (at, x) if self.config.zeros else self.strongest(at, x)
            bins = self._bins(at, x)
        if not self.config.zeros:
            return Tokens(bins, at[:, None])
        whole = np.zeros(len(self.genes), np.int64)
        whole[at] = bins
        return Tokens(whole, np.arange(len(whole))[:, None])

    def _bins(self, at: np.ndarray, x: np.ndarray) -> np.ndarray:
        # Rounding of the division by the sum must not part equal counts.
        _, tied = np.unique(np.round(x / x.max(), 12), return_inverse=True)
        draw = numpy_generator("ties", self.config.seed, at.tobytes().hex(), tied.tobytes().hex())
        order = np.lexsort((draw.random(len(at)), tied))
        rank = np.empty(len(at), np.int64)
        rank[order] = np.arange(len(at))
        return 1 + (self.config.bins - 2) * rank // max(len(at) - 1, 1)

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> Cell:
        """Without coords, the first known genes are meant."""
        check_ready(self)
        ids = np.asarray(values, np.int64)
        at = np.arange(len(ids)) if coords is None else np.asarray(coords, np.int64)[:, 0]
        kept = (ids > 0) & (ids < self.config.bins) & (at < len(self.genes))
        at, bins = at[kept], ids[kept].astype(np.float64)
        # Genes of one bin get different values, so that the cell has no ties and is read as the same bins again.
        return Cell(self.genes, at, bins + np.arange(len(at)) / max(len(at), 1))

    def piece(self, id: int) -> str:
        return f"bin {id}" if id < self.config.bins else super().piece(id)
