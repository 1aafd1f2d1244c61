"""A row of a table: one id per column, which says the column and what stands there.

    id = first_c + (0 missing, 1 unknown, 2 + bin or category)            coords = number of the column

A column of numbers is cut at the quantiles of the training rows into at most `bins` bins (a bin is [lower, upper), the
outermost are open); any other column has one id per distinct value. Numbers decode to the median of their bin. After the
columns come pad and mask.

Quantile bins: scikit-learn.org/stable/modules/preprocessing.html, KBinsDiscretizer(strategy="quantile"). A token a column:
FT-Transformer, arXiv:2106.11959, with bins as in PLE, arXiv:2203.05556 section 3.2.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, check_ready, line
from sevenfold.blocks.tokenization._record import MOST, read_bins, read_columns, write_record
from sevenfold.core.errors import CheckpointError, DataError, did_you_mean
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens

MISSING, UNKNOWN, KNOWN = 0, 1, 2
"""Places among a column's ids."""
WORD = "<unknown>"
"""What an unknown value decodes to."""


class Row(Tokenizer):
    """dict from column to str, number or None → ids [columns], coords [columns 1], columns in the order of training.

    A column that the row lacks is missing; one that training never had is an error. A word that training never had is
    the column's unknown id, and so is a number beyond float range or a word in a column of numbers.
    """

    class Config(Tokenizer.Config):
        bins: int = Field(32, ge=2, le=65536)
        """The most bins of a column of numbers."""
        categories: int = Field(1000, ge=1, le=65536)
        """The most categories of a column; rarer ones are unknown."""

    lossless = False
    variants = ({"bins": 4, "categories": 2},)

    def __init__(self, config: Any):
        super().__init__(config)
        self.columns: dict[str, list[str] | tuple[np.ndarray, np.ndarray]] = {}
        """Column → its categories, or (inner edges [b-1], medians [b]) of its bins."""

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[dict[str, Any]]:
        draw = numpy_generator("rows", seed)
        rows: list[dict[str, Any]] = []
        for _ in range(40):
            kind, size = draw.choice(["cat", "dog", "owl"]), round(float(draw.normal(4, 1)), 2)
            rows.append({"kind": str(kind), "size": size, "weight": None if draw.random() < 0.1 else size**2})
        return rows

    def fit(self, raws: Iterable[Any]) -> None:
        found: dict[str, list[Any]] = {}
        for raw in raws:
            for name, value in row_of(raw).items():
                found.setdefault(name, []).append(value)
        if not found:
            raise DataError("the row tokenizer was given no rows to learn from")
        columns: dict[str, list[str] | tuple[np.ndarray, np.ndarray]] = {}
        for name, values in found.items():
            known = [value for value in values if value is not None]
            if known and not any(isinstance(value, str) for value in known):
                columns[name] = bins_of(np.array(known, np.float64), self.config.bins)
            else:
                counts = Counter(map(str, known))
                columns[name] = sorted(sorted(counts, key=lambda word: (-counts[word], word))[: self.config.categories])
        self._adopt(columns)

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        row = row_of(raw)
        for name in row:
            if name not in self.columns:
                raise ValueError(
                    f"the row has a column {name!r} that training never had{did_you_mean(name, self.columns)}"
                )
        ids = [first + self._place(name, row.get(name)) for name, first in zip(self.columns, self._firsts)]
        return Tokens(np.array(ids, np.int64), line(len(ids)))

    def _place(self, name: str, value: Any) -> int:
        column = self.columns[name]
        if value is None:
            return MISSING
        if isinstance(column, list):
            place = self._words[name].get(str(value))
            return UNKNOWN if place is None else KNOWN + place
        return UNKNOWN if isinstance(value, str) else KNOWN + int(np.searchsorted(column[0], value, side="right"))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> dict[str, Any]:
        """Each column that some id is of; missing ones are None, unknown ones `<unknown>`."""
        check_ready(self)
        names, found = list(self.columns), {}
        for id in np.asarray(values).reshape(-1).tolist():
            if not 0 <= id < self._firsts[-1]:
                continue
            place = int(np.searchsorted(self._firsts, id, side="right")) - 1
            column, inside = self.columns[names[place]], id - int(self._firsts[place]) - KNOWN
            known = column if isinstance(column, list) else column[1].tolist()
            found[names[place]] = known[inside] if inside >= 0 else (None, WORD)[inside + KNOWN]
        return found

    def piece(self, id: int) -> str:
        if not 0 <= id < self._firsts[-1]:
            return super().piece(id)
        place = int(np.searchsorted(self._firsts, id, side="right")) - 1
        name, inside = list(self.columns)[place], id - int(self._firsts[place])
        column = self.columns[name]
        if inside < KNOWN:
            said = ("missing", "unknown")[inside]
        elif isinstance(column, list):
            said = column[inside - KNOWN]
        else:
            said = f"{column[1][inside - KNOWN]:.4g}"
        return " ".join(f"{name}={said}".split()) or str(id)

    def unknown(self, ids: np.ndarray) -> np.ndarray:
        """Which ids stand for a value that training never had, bool of the same shape."""
        return np.isin(ids, self._firsts[:-1] + UNKNOWN)

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        columns = [
            {"name": name, "categories": column}
            if isinstance(column, list)
            else {"name": name, "edges": column[0].tolist(), "medians": column[1].tolist()}
            for name, column in self.columns.items()
        ]
        return [*names, write_record(folder, {"columns": columns})]

    def restore(self, folder: Path) -> None:
        path, listed = read_columns(folder)
        columns: dict[str, list[str] | tuple[np.ndarray, np.ndarray]] = {}
        for one in listed:
            name, words = one.get("name"), one.get("categories")
            if not isinstance(name, str) or name in columns:
                raise CheckpointError(f"{path}: the column {name!r} has no name of its own")
            if words is None:
                found = read_bins(path, one, "medians")
                if found is None:
                    raise CheckpointError(f"{path}: the bins of the column {name!r} are not in order")
                columns[name] = found
            elif not isinstance(words, list) or len(words) > MOST or not all(isinstance(word, str) for word in words):
                raise CheckpointError(f"{path}: the categories of the column {name!r} are not words")
            elif len(set(words)) < len(words):
                raise CheckpointError(f"{path}: a category of the column {name!r} stands twice in it")
            else:
                columns[name] = words
        self._adopt(columns)

    def _adopt(self, columns: dict[str, list[str] | tuple[np.ndarray, np.ndarray]]) -> None:
        self.columns = columns
        sizes = [KNOWN + len(column if isinstance(column, list) else column[1]) for column in columns.values()]
        self._firsts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._words = {
            name: {word: place for place, word in enumerate(column)}
            for name, column in columns.items()
            if isinstance(column, list)
        }
        self.specials = {"pad": int(self._firsts[-1]), "mask": int(self._firsts[-1]) + 1}
        self.size = int(self._firsts[-1]) + len(self.specials)


def row_of(raw: Any) -> dict[str, str | float | None]:
    """A row with plain values: words, finite numbers, None where one is missing (None, NaN, an empty word).

    Raises ValueError, one line: not a dict from names to such, empty, or infinite.
    """
    if not isinstance(raw, dict) or not raw or not all(isinstance(name, str) for name in raw):
        raise ValueError(f"a row is a dict from column to word or number, not {str(raw)[:40]!r}")
    found: dict[str, str | float | None] = {}
    for name, value in raw.items():
        if value is None or (isinstance(value, str) and not value.strip()):
            found[name] = None
        elif isinstance(value, str):
            found[name] = value
        elif isinstance(value, int | float | np.integer | np.floating | np.bool_):
            number = float(value)
            if math.isinf(number):
                raise ValueError(f"the column {name!r} is {number}: numbers must be finite")
            found[name] = None if math.isnan(number) else number
        else:
            raise ValueError(f"the column {name!r} is {type(value).__name__}, not a word or a number")
    return found


def bins_of(values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Inner edges [b-1] and medians [b] of at most `most` quantile bins of values [n]; each bin has values in it."""
    distinct = np.unique(values)
    if len(distinct) <= most:
        return (distinct[1:] + distinct[:-1]) / 2, distinct
    edges = np.unique(np.quantile(values, np.arange(1, most) / most, method="higher"))
    edges = edges[edges > distinct[0]]
    inside = np.searchsorted(edges, values, side="right")
    order = np.argsort(inside, kind="stable")
    parts = np.split(values[order], np.cumsum(np.bincount(inside, minlength=len(edges) + 1))[:-1])
    return edges, np.array([float(np.sort(part)[(len(part) - 1) // 2]) for part in parts])
