"""A label for every token of a sequence: ids in a line.

    z_i = place of x_i in the sorted labels of the training items;   their number where nothing is known of token i

Secondary structure (Kabsch and Sander 1983, doi:10.1002/bip.360221211), disorder, exons, parts of speech. The last id stands
for no label: it is no target and is never predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import check_ready, line
from sevenfold.blocks.tokenization._labelled import Labelled, label_of
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens


class Tags(Labelled):
    """A str with one letter per token, or a list or tuple of labels, None where nothing is known → ids [n]. Decodes to a str if
    all labels are single letters, else to a tuple."""

    class Config(Labelled.Config):
        unknown: str = "-?"
        """Letters that stand for no label."""

    variants = ({"unknown": ""},)

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[str]:
        draw = numpy_generator("tags", seed)
        return ["".join(draw.choice(list("CEH"), draw.integers(4, 30))) for _ in range(24)]

    def within(self, raw: Any) -> list[str | int]:
        return [label for label in self.each(raw) if label is not None]

    def each(self, raw: Any) -> list[str | int | None]:
        """The label of every token, None where it is not known; ValueError, one line, if there are none."""
        if not isinstance(raw, str | list | tuple):
            raise ValueError(f"labels of tokens are a str of letters or a list, not {str(raw)[:40]!r}")
        return [None if one is None or one in list(self.config.unknown) else label_of(one) for one in raw]

    def encode(self, raw: Any) -> Tokens:
        """Raises ValueError for a label that training never had, with its place from 0."""
        check_ready(self)
        ids = []
        for place, label in enumerate(self.each(raw)):
            try:
                ids.append(len(self.labels) if label is None else self.id_of(label))
            except ValueError as error:
                raise ValueError(f"at place {place}: {error}") from None
        return Tokens(np.array(ids, np.int64), line(len(ids)))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> str | tuple[str | int | None, ...]:
        check_ready(self)
        unknown = self.config.unknown[:1]
        known = [*self.labels, None]
        found = [known[min(int(id), len(self.labels))] for id in np.asarray(values).reshape(-1)]
        if not all(isinstance(label, str) and len(label) == 1 for label in self.labels):
            return tuple(found)
        if None in found and not unknown:
            return tuple(found)
        return "".join(unknown if label is None else str(label) for label in found)

    def spelled(self) -> int | None:
        return len(self.labels)

    def spans(self, raw: Any) -> np.ndarray:
        """One token each."""
        begins = np.arange(len(raw), dtype=np.int64)
        return np.stack([begins, begins + 1], axis=1)

    def _adopt(self, labels: Sequence[str | int]) -> None:
        super()._adopt(labels)
        self.size = len(self.labels) + 1
