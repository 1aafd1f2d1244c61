"""Cells drawn from a few gene programs: each cell type expresses its own genes, at a depth of its own.

    c_g ~ Poisson(depth r_g),   r = share of the type's program + a share common to all,   log depth ~ N(log d, s^2)

Generated, not read: nothing to download, the same for the same seed everywhere. For first steps with single cells and
for tests with an answer (the type). Poisson counts of shares: Hafemeister 2019, doi:10.1186/s13059-019-1874-1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.cell import Cell, Genes
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Sample, Source


class GenePrograms(Source):
    """Samples are {"cells": Cell, "label": "type 1" …}."""

    class Config(Source.Config):
        path: str | None = None
        """Not used: the data are generated."""
        samples: int = Field(512, ge=3, le=1_000_000)
        """How many cells."""
        genes: int = Field(100, ge=8, le=100_000)
        """How many genes."""
        programs: int = Field(4, ge=1, le=1000)
        """How many types of cells."""
        depth: float = Field(300.0, gt=0, le=1e7)
        """The median of the counts of a cell."""
        spread: float = Field(0.4, ge=0, le=3)
        """Standard deviation s of the log of depth."""
        common: float = Field(0.3, ge=0, le=1)
        """The share of counts that all types have in common."""
        seed: int = Field(0, ge=0)
        """Of the programs and the cells."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.genes = Genes(f"GENE{number}" for number in range(1, config.genes + 1))
        draw = numpy_generator("gene programs", config.seed)
        shares = draw.gamma(0.3, 1.0, (config.programs + 1, config.genes)) + 1e-6
        shares /= shares.sum(1, keepdims=True)
        self.rates: np.ndarray = (1 - config.common) * shares[:-1] + config.common * shares[-1:]
        """[programs genes]: the expected share of each gene."""

    @classmethod
    def example(cls, folder: Path) -> Any:
        return cls.Config(samples=40, genes=30)

    @property
    def fields(self) -> dict[str, str]:
        return {"cells": "cells", "label": "label"}

    def __len__(self) -> int:
        return min(self.config.samples, self.config.limit or self.config.samples)

    def __getitem__(self, index: int) -> Sample:
        draw = numpy_generator("gene programs", self.config.seed, index)
        program = int(draw.integers(self.config.programs))
        depth = self.config.depth * np.exp(self.config.spread * draw.standard_normal())
        counts = draw.poisson(depth * self.rates[program])
        counts[int(draw.integers(len(counts)))] += 1
        at = np.flatnonzero(counts)
        return {"cells": Cell(self.genes, at, counts[at].astype(np.float32)), "label": f"type {program + 1}"}

    def where(self, index: int) -> str:
        return f"generated cell {index}"

    def files(self) -> list[Path]:
        return []
