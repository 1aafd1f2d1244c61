"""A number as a vector of length one.

    z = (x - m) / s             m, s mean and standard deviation of the training items; s = 1 if they are all equal

The standard score (scikit-learn.org/stable/modules/preprocessing.html, StandardScaler). Targets of
regression and measured conditions (temperature, dose, time).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer, check_ready
from sevenfold.core.errors import CheckpointError, DataError
from sevenfold.core.files import read_json, write_atomic
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens

FILE = "preprocessor_config.json"
LARGEST = 1e30
"""Numbers beyond it would not survive in float32."""


class Number(Tokenizer):
    """A float → one vector [1 1] float32, coords [1 0]; decodes to a float, up to rounding."""

    axes = 0
    lossless = False

    def __init__(self, config: Any):
        super().__init__(config)
        self.mean, self.std = 0.0, 1.0

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[float]:
        return numpy_generator("numbers", seed).normal(20.0, 5.0, 24).tolist()

    def layout(self) -> np.ndarray:
        return np.zeros((1, 0), np.int64)

    def fit(self, raws: Iterable[Any]) -> None:
        numbers = np.array([number_of(raw) for raw in raws])
        if not len(numbers):
            raise DataError("the number tokenizer was given no numbers to learn from")
        self._adopt(float(numbers.mean()), float(numbers.std()) if np.ptp(numbers) > 0 else 1.0)

    def encode(self, raw: Any) -> Tokens:
        """Raises ValueError for something that is not a number, NaN, or one too large for float32."""
        check_ready(self)
        scaled = (number_of(raw) - self.mean) / self.std
        if abs(scaled) > LARGEST:
            raise ValueError(f"{raw} is too far from the training data, which is {self.mean:g} +- {self.std:g}")
        return Tokens(np.array([[scaled]], np.float32), np.zeros((1, 0), np.int64))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> float:
        check_ready(self)
        return float(np.asarray(values).reshape(-1)[0]) * self.std + self.mean

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        write_atomic(Path(folder) / FILE, json.dumps({"mean": self.mean, "std": self.std}) + "\n")
        return [*names, FILE]

    def restore(self, folder: Path) -> None:
        path = Path(folder) / FILE
        record = read_json(path)
        try:
            mean, std = number_of(record["mean"]), number_of(record["std"])
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{path}: does not hold the numbers mean and std") from None
        if not std > 0:
            raise CheckpointError(f"{path}: std is {std:g}, but must be above 0")
        self._adopt(mean, std)

    def _adopt(self, mean: float, std: float) -> None:
        self.mean, self.std, self.features = mean, std, 1


def number_of(raw: Any) -> float:
    """A finite float; ValueError, one line, if it is none."""
    try:
        number = float(raw)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{str(raw)[:40]!r} is not a number") from None
    if not math.isfinite(number) or abs(number) > LARGEST:
        raise ValueError(f"{number} is not a number that can be learned from: it must be finite and below {LARGEST:g}")
    return number
