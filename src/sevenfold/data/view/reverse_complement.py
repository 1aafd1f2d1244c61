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

LETTERS, PARTNERS = "ACGTRYSWKMBDHVN", "TGCAYRSWMKVHDBN"
KNOWN = frozenset(LETTERS + LETTERS.lower())
COMPLEMENT = str.maketrans(LETTERS + LETTERS.lower(), PARTNERS + PARTNERS.lower())


class ReverseComplement(View):
    """str → str of the same length."""

    class Config(View.Config):
        probability: float = Field(0.5, ge=0, le=1)
        """p, how often the other strand is taken."""

    def __call__(self, raw: Any, generator: np.random.Generator) -> str:
        if not isinstance(raw, str) or not KNOWN.issuperset(raw):
            what = f"text with {sorted(set(raw) - KNOWN)[0]!r} in it" if isinstance(raw, str) else type(raw).__name__
            raise ConfigError(f"the reverse_complement view changes DNA, not {what}: take it out of views")
        return raw.translate(COMPLEMENT)[::-1] if generator.random() < self.config.probability else raw
