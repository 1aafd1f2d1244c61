"""Sequences drawn from a random Markov chain, whose entropy is known: what a perfect model's loss would be.

    p(x_t | x_{t-k} … x_{t-1}) from a table drawn once;   entropy rate h = sum_s pi(s) H(p(. | s))

Generated, not read: nothing to download, the same for the same seed everywhere. For first steps with sequence models and
for tests with an answer. Shannon 1948, doi:10.1002/j.1538-7305.1948.tb01338.x section 7.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Sample, Source

LETTERS = {"dna": "ACGT", "protein": "LAGVSERTIDPKQNFYMHWC"}


class Markov(Source):
    """Samples are {"dna": str} or {"protein": str}."""

    class Config(Source.Config):
        path: str | None = None
        """Not used: the data are generated."""
        letters: Literal["dna", "protein"] = "dna"
        """Bases or residues."""
        samples: int = Field(512, ge=3, le=1_000_000)
        """How many sequences."""
        size: int = Field(128, ge=1, le=1_000_000)
        """Letters of each."""
        order: int = Field(2, ge=0, le=3)
        """How many letters back the next one depends on."""
        sharpness: float = Field(2.0, ge=0)
        """0: all letters are equally likely; the larger, the more predictable."""
        seed: int = Field(0, ge=0)
        """Of the table and the sequences."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.alphabet = LETTERS[config.letters]
        states = len(self.alphabet) ** config.order
        draw = numpy_generator("markov", config.seed)
        scores = config.sharpness * draw.standard_normal((states, len(self.alphabet)))
        odds = np.exp(scores - scores.max(1, keepdims=True))
        self.table: np.ndarray = odds / odds.sum(1, keepdims=True)
        """[states letters]: p(letter | the letters before it)."""

    @classmethod
    def example(cls, folder: Path) -> Any:
        return cls.Config(samples=40, size=30)

    @property
    def entropy(self) -> float:
        """Nats per letter that no model can go below."""
        states, letters = self.table.shape
        after = (np.arange(states)[:, None] * letters + np.arange(letters)) % states
        share = np.full(states, 1 / states)
        for _ in range(2000):
            moved = np.zeros(states)
            np.add.at(moved, after, share[:, None] * self.table)
            share = moved
        return float(-(share[:, None] * self.table * np.log(self.table)).sum())

    @property
    def fields(self) -> dict[str, str]:
        return {self.config.letters: self.config.letters}

    def __len__(self) -> int:
        return min(self.config.samples, self.config.limit or self.config.samples)

    @cached_property
    def _sums(self) -> np.ndarray:
        return self.table.cumsum(1)

    def __getitem__(self, index: int) -> Sample:
        draw = numpy_generator("markov", self.config.seed, index)
        states, letters = self.table.shape
        state, dice, found = int(draw.integers(states)), draw.random(self.config.size), []
        for value in dice:
            letter = min(int(np.searchsorted(self._sums[state], value)), letters - 1)
            found.append(self.alphabet[letter])
            state = (state * letters + letter) % states
        return {self.config.letters: "".join(found)}

    def where(self, index: int) -> str:
        return f"generated sequence {index}"

    def files(self) -> list[Path]:
        return []
