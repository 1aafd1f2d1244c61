"""Raw items that carry names: a cell (genes and their counts) and a micrograph (markers and their channels).

Many items share one list of names, which is held once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


class Genes:
    """Names of genes, each once; shared by all cells of a file."""

    def __init__(self, names: Iterable[str]):
        self.names: tuple[str, ...] = tuple(map(str, names))
        self.places: dict[str, int] = {name: place for place, name in enumerate(self.names)}
        if len(self.places) != len(self.names):
            seen: set[str] = set()
            twice = next(name for name in self.names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise ValueError(f"the gene {twice!r} is named twice")

    def __len__(self) -> int:
        return len(self.names)


class Cell:
    """The genes that a cell expresses, `genes.names[at]`, and how strongly, `counts`: [k] each. A gene that is not
    named is not expressed; so the order, and genes with count 0, make no difference to whether two cells are equal."""

    __slots__ = ("at", "counts", "genes")

    def __init__(self, genes: Genes, at: np.ndarray, counts: np.ndarray):
        self.genes, self.at, self.counts = genes, at, counts

    @classmethod
    def of(cls, counts: Mapping[str, float]) -> Cell:
        """A cell from gene → count."""
        return cls(Genes(counts), np.arange(len(counts)), np.array(list(counts.values()), np.float64))

    @property
    def named(self) -> dict[str, float]:
        """Gene → count, without zeros."""
        pairs = zip(self.at.tolist(), self.counts.tolist(), strict=True)
        return {self.genes.names[place]: count for place, count in pairs if count != 0}

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Cell) and self.named == other.named

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        """`CD3D 5, LYZ 2`: all that is expressed, strongest first."""
        order = sorted(self.named.items(), key=lambda pair: (-pair[1], pair[0]))
        return ", ".join(f"{gene} {count:g}" for gene, count in order)

    __repr__ = __str__


class Micrograph:
    """A picture of several channels, `pixels` [H W C], and the marker that each channel shows, `markers`."""

    __slots__ = ("markers", "pixels")

    def __init__(self, markers: Iterable[str], pixels: np.ndarray):
        self.markers, self.pixels = tuple(map(str, markers)), pixels

    def __eq__(self, other: Any) -> bool:
        same = isinstance(other, Micrograph) and self.markers == other.markers
        return same and np.array_equal(self.pixels, other.pixels)

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        size = " x ".join(map(str, self.pixels.shape[:2]))
        means = self.pixels.reshape(-1, self.pixels.shape[-1]).mean(0)
        return f"{size} pixels; mean " + ", ".join(f"{m} {mean:.6g}" for m, mean in zip(self.markers, means))

    __repr__ = __str__
