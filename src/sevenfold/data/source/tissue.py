"""Generated micrographs of a tissue of three kinds of cells, a marker for each and one for all nuclei: nothing to download.

    pixel_c = background + sum over cells with marker c of brightness exp(-r^2 / 2 size^2), then Poisson counts

Neighbours are mostly of one kind: the kind of a cell is that of the nearest of a few seeds. So what a marker shows in a
patch is told by the other markers there and by the patches around. For first steps with many-channel pictures, as `digits`
is with plain ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.cell import Micrograph
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Sample, Source

MARKERS = ("nucleus", "epithelium", "immune", "stroma")
BACKGROUND, BRIGHT = 2.0, 60.0
"""Counts of a pixel without cells, and at the middle of one."""


class Tissue(Source):
    """Samples are {"micrograph": Micrograph of uint16 [H H 4], "label": the commonest kind of cell}."""

    class Config(Source.Config):
        path: str | None = None
        """Not used: the data are generated."""
        samples: int = Field(512, ge=3, le=1_000_000)
        """How many pictures."""
        side: int = Field(16, ge=4, le=1024)
        """H, height and width in pixels."""
        spacing: float = Field(4.0, gt=1)
        """Pixels from one cell to the next, on average."""
        seed: int = Field(0, ge=0)
        """Of all of it."""

    @classmethod
    def example(cls, folder: Path) -> Any:
        return cls.Config(samples=24)

    @property
    def fields(self) -> dict[str, str]:
        return {"micrograph": "microscopy", "label": "label"}

    def __len__(self) -> int:
        return min(self.config.samples, self.config.limit or self.config.samples)

    def __getitem__(self, index: int) -> Sample:
        draw, side = numpy_generator("tissue", self.config.seed, range(len(self))[index]), self.config.side
        cells = draw.uniform(0, side, (max(1, round((side / self.config.spacing) ** 2)), 2))
        seeds = draw.uniform(0, side, (3, 2))
        kinds = draw.integers(3, size=3)[((cells[:, None] - seeds) ** 2).sum(-1).argmin(1)]
        middle = np.arange(side) + 0.5
        reach = 2 * (self.config.spacing / 3) ** 2
        down, across = (np.exp(-((middle - cells[:, axis, None]) ** 2) / reach) for axis in (0, 1))
        spots = draw.uniform(0.5, 1.5, len(cells))[:, None, None] * down[:, :, None] * across[:, None, :]
        glow = np.stack([spots.sum(0), *(spots[kinds == kind].sum(0) for kind in range(3))], axis=2)
        pixels = draw.poisson(BACKGROUND + BRIGHT * glow).astype(np.uint16)
        return {
            "micrograph": Micrograph(MARKERS, pixels),
            "label": MARKERS[1 + int(np.bincount(kinds, minlength=3).argmax())],
        }

    def where(self, index: int) -> str:
        return f"generated micrograph {index}"

    def files(self) -> list[Path]:
        return []
