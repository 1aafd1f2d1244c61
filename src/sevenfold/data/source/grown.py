"""Molecules grown at random, with valences kept: chains, branches and rings, with how many heavy atoms each has.

For tests and for trying things out without a file. An atom is added to one that has a free bond, until the size is
reached; some begin with a benzene ring. Written as SMILES.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Sample, Source

VALENCES = {"C": 4, "N": 3, "O": 2, "S": 2, "F": 1, "Cl": 1, "Br": 1}
CHANCES = (0.66, 0.11, 0.12, 0.03, 0.03, 0.03, 0.02)
RING = ("c1ccccc1", 6)


class Grown(Source):
    """Fields: `smiles` (molecule) and `atoms` (number: atoms but hydrogen)."""

    class Config(Source.Config):
        samples: int = Field(1000, ge=2, le=10_000_000)
        """How many molecules."""
        size: int = Field(12, ge=2, le=200)
        """Atoms but hydrogen of a molecule, on average."""
        seed: int = Field(0, ge=0)
        """Of what is grown."""

    def __init__(self, config: Any):
        super().__init__(config)
        self._fields = {"smiles": "molecule", "atoms": "number"}

    @classmethod
    def example(cls, folder: Path) -> Any:
        return cls.Config(samples=40)

    def __len__(self) -> int:
        return min(self.config.samples, self.config.limit or self.config.samples)

    def __getitem__(self, index: int) -> Sample:
        draw = numpy_generator("grown", self.config.seed, index)
        count = int(draw.integers(max(2, self.config.size // 2), self.config.size * 3 // 2 + 1))
        text, atoms = _grow(draw, count)
        return {"smiles": text, "atoms": float(atoms)}

    def where(self, index: int) -> str:
        return f"grown molecule {index}"


def _grow(draw: np.random.Generator, count: int) -> tuple[str, int]:
    """(SMILES, heavy atoms) of a molecule with about `count` of them."""
    kinds, children, free, ring = ["C"], [[]], [4], False  # type: ignore[var-annotated]
    if count > RING[1] + 1 and draw.random() < 0.5:
        ring, count = True, count - RING[1]
        free[0] -= 1
    while len(kinds) < count:
        open_at = [place for place, bonds in enumerate(free) if bonds > 0]
        if not open_at:
            break
        parent = int(draw.choice(open_at))
        kind = str(draw.choice(list(VALENCES), p=CHANCES))
        double = VALENCES[kind] > 1 and free[parent] > 1 and draw.random() < 0.12
        free[parent] -= 1 + double
        children[parent].append((len(kinds), double))
        kinds.append(kind)
        children.append([])
        free.append(VALENCES[kind] - 1 - double)
    body = _write(0, kinds, children)
    return (RING[0] + body if ring else body), len(kinds) + (RING[1] if ring else 0)


def _write(atom: int, kinds: list[str], children: list[list[tuple[int, bool]]]) -> str:
    branches = ["=" * double + _write(child, kinds, children) for child, double in children[atom]]
    return kinds[atom] + "".join(f"({branch})" for branch in branches[:-1]) + "".join(branches[-1:])
