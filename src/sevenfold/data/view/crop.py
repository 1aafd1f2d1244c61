"""A piece of a sequence, a series or a sound, from a random place.

    y = x[a : a + n],  a ~ U{0 ... N - n};   n = length, or round(s N), s ~ U(share);   all of it if it is not longer

Training windows of DNA, protein and text models (ESM-2, HyenaDNA); two pieces of one document are alike in Contriever
(arXiv:2112.09118 section 3.1), of one sound in COLA (arXiv:2010.10915).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.data.view import View
from sevenfold.data.view._ranges import Shares


class Crop(View):
    """str or array [T …] → the same, shorter."""

    class Config(View.Config):
        length: int | None = Field(None, ge=1)
        """n, letters (steps, samples, residues) that are kept; by default what share says."""
        share: Shares = (0.5, 1.0)
        """The least and the largest share s of the item, where no length is given."""

    modalities = ("text", "dna", "protein", "series", "audio", "actions", "structure")

    def __call__(self, raw: Any, generator: np.random.Generator) -> Any:
        if not isinstance(raw, str) and not (isinstance(raw, np.ndarray) and raw.ndim):
            raise self.refusal("sequences of letters, series and sounds", raw)
        length = self.config.length
        if length is None:
            length = max(1, round(float(generator.uniform(*self.config.share)) * len(raw)))
        start = int(generator.integers(0, max(0, len(raw) - length), endpoint=True))
        piece = raw[start : start + length]
        if isinstance(piece, str):
            return piece
        missing = piece.dtype.kind == "f" and not np.isfinite(piece).any()
        return raw if missing else piece.copy()
