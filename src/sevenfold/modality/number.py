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
from sevenfold.modality._features import Features
from sevenfold.modality._strings import spread


class Number(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("number")
        """How raw items become tokens."""

    task = "numbers"

    def check(self, raw: Any) -> float:
        """A finite float, from anything that float() takes."""
        return number_of(raw)

    def remarks(self, raws: Sequence[Any]) -> list[str]:
        numbers = [self.check(raw) for raw in raws]
        return (
            [f"all {len(raws)} training items are {numbers[0]:g}: there is nothing to predict"]
            if len(set(numbers)) == 1
            else []
        )

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

    def features(self, train: Sequence[Any]) -> tuple[Features, ...]:
        """The number."""
        return (Features("the number", lambda raws: np.array([[self.check(raw)] for raw in raws], np.float32)),)

    def edits(self, raw: Any, draw: np.random.Generator) -> dict[str, float]:
        """One percent more."""
        return {"one percent more": self.check(raw) * 1.01}

    def error(self, raw: Any, back: Any) -> float:
        """The difference as a share of the number; as it is where the number is 0."""
        number = self.check(raw)
        return abs(number - float(back)) / (abs(number) or 1.0)

    error_unit = "share of the number"
