"""Sequences whose letters are drawn by states that nobody sees: helices, strands and coils of proteins, or exons and introns.

    s_i | s_(i-1): stays with probability 1 - 1/run, otherwise another state, each as likely;     x_i ~ p(. | s_i)

A hidden Markov model (Rabiner 1989, doi:10.1109/5.18626), with the state of every letter. For tests and for trying labels of
tokens without a file: what can be known of a state is in the letters about it, not in the letter alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Sample, Source

LETTERS = {"dna": "ACGT", "protein": "ACDEFGHIKLMNPQRSTVWY"}
STATES = {"dna": {"I": "intron", "X": "exon"}, "protein": {"C": "coil", "E": "strand", "H": "helix"}}


class HiddenStates(Source):
    """Samples are {"protein": str, "states": str of C, E and H} or {"dna": str, "states": str of I and X}; `-` for the letters at
    the ends whose state is not told. "contains" are the names of the states that occur, "share" is that of letters in the last state."""

    class Config(Source.Config):
        path: str | None = None
        """Not used: the data are generated."""
        letters: Literal["dna", "protein"] = "protein"
        """Residues or bases."""
        samples: int = Field(1000, ge=3, le=1_000_000)
        """How many sequences."""
        size: int = Field(48, ge=4, le=100_000)
        """Letters of each, on average."""
        run: float = Field(8.0, gt=1)
        """Letters of one state in a row, on average."""
        sharpness: float = Field(1.0, ge=0)
        """0: letters say nothing of the state; the larger, the more."""
        untold: int = Field(2, ge=0)
        """Letters at each end whose state is not told."""
        held_out: float = Field(default=0.1, gt=0, lt=1)
        """The share of sequences that is never trained on, chosen by a hash of the sequence."""
        seed: int = Field(0, ge=0)
        """Of what is drawn."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.alphabet, self.states = LETTERS[config.letters], STATES[config.letters]
        scores = config.sharpness * numpy_generator("states", config.seed).standard_normal(
            (len(self.states), len(self.alphabet))
        )
        odds = np.exp(scores - scores.max(1, keepdims=True))
        self.emits: np.ndarray = odds / odds.sum(1, keepdims=True)
        """[states letters]: p(letter | state)."""
        count = len(self.states)
        self.moves = np.full((count, count), 1 / config.run / (count - 1))
        """[states states]: p(next | state)."""
        np.fill_diagonal(self.moves, 1 - 1 / config.run)
        self._fields = {config.letters: config.letters, "states": "text", "contains": "text", "share": "number"}

    @classmethod
    def example(cls, folder: Path) -> Any:
        return cls.Config(samples=40, size=20)

    def __len__(self) -> int:
        return min(self.config.samples, self.config.limit or self.config.samples)

    def __getitem__(self, index: int) -> Sample:
        draw, config = numpy_generator("states", self.config.seed, index), self.config
        size = int(draw.integers(max(4, config.size // 2), config.size * 3 // 2 + 1))
        names, dice = list(self.states), draw.random((size, 2))
        state, found = int(draw.integers(len(names))), []
        for place, (move, emit) in enumerate(dice):
            if place:
                state = min(int(np.searchsorted(self.moves[state].cumsum(), move)), len(names) - 1)
            letter = min(int(np.searchsorted(self.emits[state].cumsum(), emit)), len(self.alphabet) - 1)
            found.append((names[state], self.alphabet[letter]))
        said = "".join(name for name, _ in found)
        told = min(config.untold, (size - 1) // 2)
        return {
            config.letters: "".join(letter for _, letter in found),
            "states": "-" * told + said[told : size - told] + "-" * told,
            "contains": ";".join(self.states[name] for name in sorted(set(said))),
            "share": said.count(names[-1]) / size,
        }

    def where(self, index: int) -> str:
        return f"generated sequence {index}"

    def files(self) -> list[Path]:
        return []
