"""A whole cell as one vector: how strongly it expresses every gene that is known.

    z_g = log(1 + 10,000 c_g / sum c);   with `scaled` (z_g - m_g) / s_g, m and s the mean and standard deviation over training cells

The usual normalisation of counts: Luecken 2019, doi:10.15252/msb.20188746, section "Normalization"; the input of scVI and of
principal components in scanpy. One token, so nothing is left out and the place of a gene is its column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, check_ready
from sevenfold.blocks.tokenization._genes import GeneTokenizer
from sevenfold.core.cell import Cell
from sevenfold.core.types import Tokens

LARGEST = 10.0
"""Scaled values are cut off here, either way (as scanpy's `scale`)."""


class Expression(GeneTokenizer):
    """Cell → one vector [1 genes] float32, coords [1 1] of 0; decodes to a Cell of counts per 10,000, up to rounding."""

    class Config(Tokenizer.Config):
        genes: int = Field(4000, ge=1, le=1_000_000)
        """The most genes that it knows: those that the most training cells express."""
        scaled: bool = False
        """Whether every gene is brought to a mean of 0 and a standard deviation of 1 over the training cells."""

    variants = ({"scaled": True},)

    def __init__(self, config: Any):
        super().__init__(config)
        self.idempotent = not config.scaled  # what is cut off stays so
        self.mean, self.deviation = np.zeros(0), np.ones(0)
        """m and s, [genes] float64; 0 and 1 unless `scaled`."""

    def adopt(self, names: Sequence[str], medians: np.ndarray) -> None:
        super().adopt(names, medians)
        self.features = len(names)
        self.mean, self.deviation = np.zeros(len(names)), np.ones(len(names))

    def learn(self, cells: Sequence[Cell]) -> None:
        if not self.config.scaled:
            return
        total, squares, count = np.zeros(len(self.genes)), np.zeros(len(self.genes)), len(cells)
        for cell in cells:
            at, x = self._known(cell, self.genes)
            total[at] += np.log1p(x)
            squares[at] += np.log1p(x) ** 2
        self.mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - self.mean**2, 0))
        self.deviation = np.where(deviation > 1e-6, deviation, 1.0)

    def layout(self) -> np.ndarray:
        return np.zeros((1, 1), np.int64)

    def encode(self, raw: Any) -> Tokens:
        at, x = self.known(raw)
        values = np.zeros(len(self.genes))
        values[at] = np.log1p(x)
        if self.config.scaled:
            values = np.clip((values - self.mean) / self.deviation, -LARGEST, LARGEST)
        return Tokens(values[None].astype(np.float32), np.zeros((1, 1), np.int64))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> Cell:
        """Of several vectors the first; what would be less than nothing is nothing."""
        check_ready(self)
        strength = np.asarray(values, np.float64).reshape(-1, len(self.genes))[0] * self.deviation + self.mean
        at = np.flatnonzero(strength > 1e-5)
        return Cell(self.genes, at, np.expm1(strength[at]))

    def record(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    def relearn(self, record: dict[str, Any]) -> None:
        mean, deviation = (np.array(record[name], np.float64) for name in ("mean", "deviation"))
        if not (
            mean.shape == deviation.shape == (len(self.genes),) and np.isfinite(mean).all() and (deviation > 0).all()
        ):
            raise ValueError
        self.mean, self.deviation = mean, deviation
