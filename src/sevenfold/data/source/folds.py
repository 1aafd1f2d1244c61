"""Backbones built from helices, strands and loops, with ideal bonds: structures for first steps and tests.

    state ~ a Markov chain over helix, strand, loop;   (phi, psi) = the state's mean + noise;   omega = 180°

Each residue of a state also prefers some letters, so a sequence says something of its structure. Generated, not read:
nothing to download, the same for the same seed everywhere. Chains do not avoid themselves. Atoms from torsions:
Parsons 2005, doi:10.1002/jcc.20237.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.backbone import chain_of
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Sample, Source

MEANS = np.array([[-62.0, -42.0], [-120.0, 130.0], [-80.0, 70.0]])
"""phi and psi of helix, strand and loop, in degrees."""
STAYS = (0.9, 0.85, 0.5)
"""How likely the next residue is of the same state."""
LETTERS = ("ALEKQMR", "VIYFTWC", "GPNDSHT")
"""Residues that a state prefers."""


class Folds(Source):
    """Samples are {"structure": float32 [n 3 3] (N, CA, C in Å), "protein": str}."""

    class Config(Source.Config):
        path: str | None = None
        """Not used: the data are generated."""
        samples: int = Field(256, ge=3, le=100_000)
        """How many chains."""
        size: int = Field(48, ge=2, le=5000)
        """Residues of each."""
        noise: float = Field(8.0, ge=0, le=90)
        """Standard deviation of phi and psi, in degrees."""
        seed: int = Field(0, ge=0)
        """Of everything drawn."""

    @classmethod
    def example(cls, folder: Path) -> Any:
        return cls.Config(samples=24, size=12)

    @property
    def fields(self) -> dict[str, str]:
        return {"structure": "structure", "protein": "protein"}

    def __len__(self) -> int:
        return min(self.config.samples, self.config.limit or self.config.samples)

    @cached_property
    def _chains(self) -> tuple[np.ndarray, list[str]]:
        """All structures [samples n 3 3], and their letters."""
        drawn = [self._drawn(index) for index in range(len(self))]
        chains = chain_of(np.deg2rad(np.stack([angles for angles, _ in drawn])))
        return chains.astype(np.float32), [letters for _, letters in drawn]

    def _drawn(self, index: int) -> tuple[np.ndarray, str]:
        """phi, psi, omega in degrees [n 3], and letters."""
        draw, size = numpy_generator("folds", self.config.seed, index), self.config.size
        state, states = int(draw.integers(3)), []
        for dice, other in zip(draw.random(size), draw.integers(1, 3, size)):
            state = state if dice < STAYS[state] else (state + int(other)) % 3
            states.append(state)
        angles = np.full((size, 3), 180.0)
        angles[:, :2] = MEANS[states] + draw.normal(0, self.config.noise, (size, 2))
        letters = "".join(LETTERS[state][pick] for state, pick in zip(states, draw.integers(7, size=size)))
        return angles, letters

    def __getitem__(self, index: int) -> Sample:
        chains, letters = self._chains
        return {"structure": chains[range(len(self))[index]], "protein": letters[index]}

    def where(self, index: int) -> str:
        return f"generated chain {index}"

    def files(self) -> list[Path]:
        return []
