"""Any number of a fixed set of labels as one vector of 0 and 1.

    z_j = 1 if label j is among those of the item, else 0

Coded as scikit-learn's MultiLabelBinarizer does (scikit-learn.org/stable/modules/preprocessing_targets.html). Functions of a
protein, subjects of a text, markers of a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import check_ready
from sevenfold.blocks.tokenization._labelled import Labelled, label_of
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens


class MultiHot(Labelled):
    """Words or whole numbers in a list or tuple, a str with a separator between them, or an array of 0 and 1 [c] → one vector
    [1 c] float32, coords [1 0]. Decodes to a sorted tuple. An empty str is an item with none of them."""

    class Config(Labelled.Config):
        separator: str = Field(";", min_length=1)
        """What stands between the labels of an item that is written as one str; a line end does too."""

    axes = 0
    binary = True

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[tuple[str, ...]]:
        draw = numpy_generator("several labels", seed)
        names = ("barks", "flies", "has fur", "lays eggs", "swims")
        return [tuple(name for name in names if draw.random() < 0.4) for _ in range(24)] + [names]

    def layout(self) -> np.ndarray:
        return np.zeros((1, 0), np.int64)

    def within(self, raw: Any) -> Sequence[str | int]:
        return range(len(raw)) if isinstance(raw, np.ndarray) else several(raw, self.config.separator)

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        if isinstance(raw, np.ndarray):
            if len(flags(raw)) != self.features:
                raise ValueError(f"{len(raw)} places of 0 and 1, and training had {self.features}")
            vector = raw.astype(np.float32)
        else:
            vector = np.zeros(self.features or 0, np.float32)
            vector[[self.id_of(label) for label in several(raw, self.config.separator)]] = 1
        return Tokens(vector[None], np.zeros((1, 0), np.int64))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> tuple[str | int, ...]:
        check_ready(self)
        there = np.asarray(values).reshape(-1) > 0.5
        return ordered(label for label, one in zip(self.labels, there) if one)

    def _adopt(self, labels: Sequence[str | int]) -> None:
        super()._adopt(labels)
        self.features = len(self.labels)


def several(raw: Any, separator: str) -> tuple[str | int, ...]:
    """The labels of an item, sorted, each once; ValueError, one line, if they are none."""
    if isinstance(raw, str):
        raw = [word.strip() for line in raw.splitlines() for word in line.split(separator) if word.strip()]
    if not isinstance(raw, list | tuple | set | frozenset):
        raise ValueError(f"labels are words in a list, or an array of 0 and 1, not {str(raw)[:40]!r}")
    return ordered({label_of(one) for one in raw})


def ordered(labels: Any) -> tuple[str | int, ...]:
    """Numbers before words."""
    return tuple(sorted(labels, key=lambda label: (isinstance(label, str), label)))


def flags(raw: np.ndarray) -> np.ndarray:
    """An array of 0 and 1 [c]; ValueError, one line, for anything else."""
    if raw.ndim != 1 or raw.dtype.kind not in "biuf" or not raw.size or not np.isin(raw, (0, 1)).all():
        raise ValueError(f"labels as an array are zeros and ones in a line, not {str(raw).splitlines()[0][:40]!r}")
    return raw
