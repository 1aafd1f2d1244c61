"""The other strand of a piece of DNA, read in its own direction.

    y_i = complement(x_(n-1-i)) with probability p, otherwise y = x;  A-T, C-G, and the IUPAC letters alike

Used in training HyenaDNA, Caduceus (arXiv:2403.03234) and Evo.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.errors import ConfigError
from sevenfold.data.view import View
from sevenfold.data.view._items import letters_of

LETTERS, PARTNERS = "ACGTRYSWKMBDHVN", "TGCAYRSWMKVHDBN"
KNOWN = frozenset(LETTERS + LETTERS.lower())
COMPLEMENT = str.maketrans(LETTERS + LETTERS.lower(), PARTNERS + PARTNERS.lower())


class ReverseComplement(View):
    """str → str of the same length."""

    class Config(View.Config):
        probability: float = Field(0.5, ge=0, le=1)
        """p, how often the other strand is taken."""

    modalities = ("dna",)

    def __call__(self, raw: Any, generator: np.random.Generator) -> str:
        letters = letters_of(self, raw, "DNA")
        if not KNOWN.issuperset(letters):
            wrong = sorted(set(letters) - KNOWN)[0]
            raise ConfigError(f"the {self.kind} view changes DNA, not text with {wrong!r} in it: take it out of views")
        return letters.translate(COMPLEMENT)[::-1] if generator.random() < self.config.probability else letters
