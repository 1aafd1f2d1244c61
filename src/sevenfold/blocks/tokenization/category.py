"""One of a fixed set of labels as one id.

    z = place of x in the sorted labels of the training items, or in the labels that its config names

Coded as scikit-learn's LabelEncoder does (scikit-learn.org/stable/modules/preprocessing_targets.html). Class labels,
cell types, actions. No special tokens: the ids are the classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer, check_ready
from sevenfold.core.errors import CheckpointError, ConfigError, DataError
from sevenfold.core.files import read_json, write_atomic
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens

FILE = "vocab.json"
SHOWN = 20
"""The most labels that an error lists."""


class Category(Tokenizer):
    """A str or an int → one id [1], coords [1 0]. Numbers are sorted before words; 3 and "3" are two labels."""

    class Config(Tokenizer.Config):
        labels: tuple[str | int, ...] = ()
        """The label of each id, in order; by default those of the training items, sorted."""

    axes = 0

    def __init__(self, config: Any):
        super().__init__(config)
        self.labels: list[str | int] = []
        """The label of each id."""
        self._ids: dict[str | int, int] = {}
        if config.labels:
            if len(set(config.labels)) != len(config.labels):
                raise ConfigError("category: a label stands twice in labels")
            self._adopt(list(config.labels))

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[str]:
        draw = numpy_generator("labels", seed)
        return [str(label) for label in draw.choice(["cat", "dog", "owl", "bee"], 24)]

    def layout(self) -> np.ndarray:
        return np.zeros((1, 0), np.int64)

    def fit(self, raws: Iterable[Any]) -> None:
        labels = {label_of(raw) for raw in raws}
        if not labels:
            raise DataError("the category tokenizer was given no labels to learn from")
        self._adopt(sorted(labels, key=lambda label: (isinstance(label, str), label)))

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        id = self._ids.get(label_of(raw))
        if id is None:
            more = f" and {len(self.labels) - SHOWN} more" if len(self.labels) > SHOWN else ""
            known = ", ".join(map(repr, self.labels[:SHOWN]))
            raise ValueError(f"the label {raw!r} was not in the training data; known: {known}{more}")
        return Tokens(np.array([id], np.int64), np.zeros((1, 0), np.int64))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> str | int:
        check_ready(self)
        return self.labels[int(np.asarray(values).reshape(-1)[0])]

    def piece(self, id: int) -> str:
        return str(self.labels[id]) if 0 <= id < len(self.labels) else super().piece(id)

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        write_atomic(Path(folder) / FILE, json.dumps(self.labels, ensure_ascii=False, indent=1) + "\n")
        return [*names, FILE]

    def restore(self, folder: Path) -> None:
        path = Path(folder) / FILE
        labels = read_json(path)
        if not isinstance(labels, list) or not labels or any(type(label) not in (str, int) for label in labels):
            raise CheckpointError(f"{path}: is not a list of labels")
        if len(set(labels)) != len(labels):
            raise CheckpointError(f"{path}: a label stands twice in it")
        self._adopt(labels)

    def _adopt(self, labels: list[str | int]) -> None:
        self.labels, self._ids = labels, {label: id for id, label in enumerate(labels)}
        self.size = len(labels)


def label_of(raw: Any) -> str | int:
    """A label as a plain str or int; ValueError, one line, if it is neither."""
    if isinstance(raw, str):
        return str(raw)
    if isinstance(raw, int | np.integer | np.bool_):
        return int(raw)
    if isinstance(raw, float | np.floating) and float(raw).is_integer():
        return int(raw)
    raise ValueError(
        f"a label is a word or a whole number, not {raw!r}: numbers are learned as a stream of kind number"
    )
