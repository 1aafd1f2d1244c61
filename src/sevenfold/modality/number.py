"""Numbers: a float becomes a vector of length one, without a place.

A quantity to predict (regression) or a condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization.number import number_of
from sevenfold.core import part
from sevenfold.modality import Modality
from sevenfold.modality._strings import spread


class Number(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("number")
        """How raw items become tokens."""

    def check(self, raw: Any) -> float:
        """A finite float, from anything that float() takes."""
        return number_of(raw)

    def summary(self, raws: Sequence[Any]) -> dict[str, Any]:
        if not raws:
            return {"items": 0}
        numbers = [self.check(raw) for raw in raws]
        return {
            "items": len(numbers),
            "least / median / most": spread(numbers),
            "mean": round(float(np.mean(numbers)), 6),
            "standard deviation": round(float(np.std(numbers)), 6),
        }
