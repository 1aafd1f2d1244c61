"""Genes as ids, with how strong they are as a real coordinate.

    z_g = gene g,  coordinate v_g = log(1 + 10,000 c_g / sum c),  for known genes with c_g > 0

With `position: coordinate_mlp` a token is the embedding of its gene plus a small network of its value: the continuous
value encoder of Cui 2024 (scGPT), doi:10.1038/s41592-024-02201-0, Methods. Ids: pad, mask, then genes. The order of
tokens says nothing; use positions that read the coordinate as a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import check_ready
from sevenfold.blocks.tokenization._genes import GeneTokenizer
from sevenfold.core.cell import Cell
from sevenfold.core.types import Tokens


class GeneValue(GeneTokenizer):
    """Cell → ids [n], coords [n 1] float32 values; decodes to a Cell of counts per 10,000, up to rounding."""

    first = 2
    coords_tell = True

    def __init__(self, config: Any):
        super().__init__(config)
        self.specials = {"pad": 0, "mask": 1}

    def adopt(self, names: Sequence[str], medians: np.ndarray) -> None:
        super().adopt(names, medians)
        self.size = self.first + len(names)

    def encode(self, raw: Any) -> Tokens:
        at, x = self.strongest(*self.known(raw))
        return Tokens(self.first + at, np.log1p(x)[:, None].astype(np.float32))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> Cell:
        """Without coords, every gene has its median strength."""
        check_ready(self)
        ids = np.asarray(values, np.int64)
        kept = ids >= self.first
        at = ids[kept] - self.first
        x = self.medians[at] if coords is None else np.expm1(np.asarray(coords, np.float64)[kept, 0])
        return Cell(self.genes, at, x)

    def piece(self, id: int) -> str:
        return self.genes.names[id - self.first] if self.first <= id < (self.size or 0) else super().piece(id)
