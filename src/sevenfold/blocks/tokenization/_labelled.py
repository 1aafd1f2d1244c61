"""What the tokenizers of labels share: a vocabulary of words or whole numbers, learned from training items or given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer, check_ready
from sevenfold.core.errors import CheckpointError, ConfigError, DataError
from sevenfold.core.files import read_json, write_atomic

FILE = "vocab.json"
SHOWN = 20
"""The most labels that an error lists."""


class Labelled(Tokenizer):
    """Base of the tokenizers whose ids, or places of a vector, are labels. Numbers are sorted before words; 3 and "3" are two
    labels."""

    class Config(Tokenizer.Config):
        labels: tuple[str | int, ...] = ()
        """The label of each id, in order; by default those of the training items, sorted."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.labels: list[str | int] = []
        """The label of each id."""
        self._ids: dict[str | int, int] = {}
        if config.labels:
            if len(set(config.labels)) != len(config.labels):
                raise ConfigError(f"{self.kind}: a label stands twice in labels")
            self._adopt(list(config.labels))

    def within(self, raw: Any) -> Iterable[str | int]:
        """The labels of one raw item."""
        raise NotImplementedError

    def fit(self, raws: Iterable[Any]) -> None:
        labels = {label for raw in raws for label in self.within(raw)}
        if not labels:
            raise DataError(f"the {self.kind} tokenizer was given no labels to learn from")
        self._adopt(sorted(labels, key=lambda label: (isinstance(label, str), label)))

    def id_of(self, label: str | int) -> int:
        """Raises ValueError for a label that training never had."""
        id = self._ids.get(label)
        if id is None:
            more = f" and {len(self.labels) - SHOWN} more" if len(self.labels) > SHOWN else ""
            known = ", ".join(map(repr, self.labels[:SHOWN]))
            raise ValueError(f"the label {label!r} was not in the training data; known: {known}{more}")
        return id

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

    def _adopt(self, labels: Sequence[str | int]) -> None:
        self.labels, self._ids = list(labels), {label: id for id, label in enumerate(labels)}


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
