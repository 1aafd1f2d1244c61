"""Letters of a sequence exchanged for others at random places.

    y_i = another letter of the alphabet, each as likely, with probability p;   otherwise y_i = x_i

Point mutations, the model of Jukes and Cantor 1969; as views of DNA: Lee 2023 (EvoAug), doi:10.1186/s13059-023-02941-w.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from sevenfold.data.view import View
from sevenfold.data.view._items import letters_of


class Mutate(View):
    """str → str of the same length."""

    class Config(View.Config):
        rate: float = Field(0.05, ge=0, le=1)
        """p, the share of letters that are exchanged."""
        alphabet: str | None = None
        """The letters that are put in (ACGT for DNA); by default those of the item itself."""

        @model_validator(mode="after")
        def _letters(self) -> Self:
            if self.alphabet is not None and len(set(self.alphabet)) < 2:
                raise ValueError(f"alphabet: {self.alphabet!r} has fewer than two letters")
            return self

    modalities = ("text", "dna", "protein")

    def __call__(self, raw: Any, generator: np.random.Generator) -> str:
        letters = letters_of(self, raw)
        alphabet = sorted(set(letters if self.config.alphabet is None else self.config.alphabet))
        places = np.flatnonzero(generator.random(len(letters)) < self.config.rate).tolist()
        if not places or len(alphabet) < 2:
            return letters
        known = {letter: place for place, letter in enumerate(alphabet)}
        changed = list(letters)
        for place, draw in zip(places, generator.random(len(places)).tolist()):
            own = known.get(changed[place])
            other = int(draw * (len(alphabet) - (own is not None)))
            changed[place] = alphabet[other + (own is not None and other >= own)]
        return "".join(changed)
