"""One of a fixed set of labels as one id.

    z = place of x in the sorted labels of the training items, or in the labels that its config names

Coded as scikit-learn's LabelEncoder does (scikit-learn.org/stable/modules/preprocessing_targets.html). Class labels,
cell types, actions. No special tokens: the ids are the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import check_ready
from sevenfold.blocks.tokenization._labelled import Labelled, label_of
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens


class Category(Labelled):
    """A str or an int → one id [1], coords [1 0]."""

    axes = 0

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[str]:
        draw = numpy_generator("labels", seed)
        return [str(label) for label in draw.choice(["cat", "dog", "owl", "bee"], 24)]

    def layout(self) -> np.ndarray:
        return np.zeros((1, 0), np.int64)

    def within(self, raw: Any) -> list[str | int]:
        return [label_of(raw)]

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        return Tokens(np.array([self.id_of(label_of(raw))], np.int64), np.zeros((1, 0), np.int64))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> str | int:
        check_ready(self)
        return self.labels[int(np.asarray(values).reshape(-1)[0])]

    def _adopt(self, labels: Sequence[str | int]) -> None:
        super()._adopt(labels)
        self.size = len(self.labels)
