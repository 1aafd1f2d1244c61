"""Actions as ids: each number of each time step, cut into bins of its own column, at its time.

    id = first_a + place of x_ta among the values of column a          (a column of few whole numbers)
    id = first_a + #{edges of column a <= x_ta}                        (any other: bins of equal width or equal count)
    coords = (t * step, or the time column; a)

A number that is missing (NaN) makes no token, so columns may run at different rates; streams of different rates share
the axis `time` by their `step`. After the columns come pad and mask.

Brohan 2022 (RT-1), arXiv:2212.06817 section 5.1: 256 bins of equal width between bounds. Reed 2022 (Gato),
arXiv:2205.06175 section 2.1: discrete and continuous actions in one sequence, time step by time step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, check_ready
from sevenfold.blocks.tokenization._record import read_bins, read_columns, write_record
from sevenfold.core.errors import CheckpointError, DataError
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens


class ActionBin(Tokenizer):
    """array [T] or [T A] → ids [n], coords [n 2] float64 (time, column), n the numbers that are not missing; decodes to
    [T' A] float32 (and the time column, if there is one), T' the times that some token names."""

    class Config(Tokenizer.Config):
        bins: int = Field(256, ge=2, le=65536)
        """Bins of a continuous column."""
        discrete: int = Field(32, ge=1, le=65536)
        """A column of whole numbers with at most this many distinct ones is discrete: each has an id."""
        quantiles: bool = False
        """Whether bins hold equally many training values, instead of being equally wide."""
        step: float = Field(1.0, gt=0)
        """Time from one row to the next."""
        time: int | None = Field(None, ge=0)
        """The column that holds each row's time, growing; it makes no tokens."""

    axes = 2
    lossless = False
    variants = ({"bins": 8, "quantiles": True}, {"time": 0})

    def __init__(self, config: Any):
        super().__init__(config)
        self.columns: list[tuple[np.ndarray, np.ndarray]] = []
        """Of each column but time: (inner edges [b-1], what each bin decodes to [b])."""
        self.discrete: list[bool] = []
        """Whether each is discrete."""

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[np.ndarray]:
        """Columns: a time that grows, a discrete action, a continuous one that changes every other step."""
        draw = numpy_generator("actions", seed)
        found = []
        for _ in range(12):
            count = int(draw.integers(6, 20))
            force = np.clip(draw.normal(0, 0.3, count).cumsum(), -1, 1)
            force[1::2] = force[::2][: count // 2]
            rows = np.stack([np.arange(count), draw.integers(0, 4, count), force], axis=1)
            found.append(rows.astype(np.float32))
        return found

    def fit(self, raws: Iterable[Any]) -> None:
        parts = [self._split(raw)[1] for raw in raws]
        widths = sorted({part.shape[1] for part in parts})
        if len(widths) != 1:
            raise DataError(f"the actions have {' and '.join(map(str, widths)) or 'no'} numbers a step: give one kind")
        columns, discrete = [], []
        for place, values in enumerate(np.concatenate(parts).astype(np.float64).T):
            known = values[np.isfinite(values)]
            distinct = np.unique(known)
            if not len(distinct):
                raise DataError(f"the column {place} of the actions has no number in it")
            few = len(distinct) <= self.config.discrete and bool((distinct == np.rint(distinct)).all())
            discrete.append(few)
            columns.append(bins(distinct) if few or len(distinct) == 1 else self._cut(known))
        self._adopt(columns, discrete)

    def _cut(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = self.config.bins
        if not self.config.quantiles:
            edges = np.linspace(values.min(), values.max(), count + 1)
            return edges[1:-1], (edges[1:] + edges[:-1]) / 2
        edges = np.unique(np.quantile(values, np.arange(count + 1) / count))
        return edges[1:-1], (edges[1:] + edges[:-1]) / 2

    def _split(self, raw: Any) -> tuple[np.ndarray, np.ndarray]:
        """Times [T] float64 and the other columns [T A]."""
        rows, place = actions(raw), self.config.time
        if place is None:
            return np.arange(len(rows)) * self.config.step, rows
        if place >= rows.shape[1] or rows.shape[1] < 2:
            raise ValueError(f"the actions have {rows.shape[1]} columns, and column {place} of them is the time")
        times = rows[:, place].astype(np.float64)
        if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
            raise ValueError(f"column {place} of the actions, the time, does not grow from row to row")
        return times, np.delete(rows, place, axis=1)

    def encode(self, raw: Any) -> Tokens:
        """Discrete values that training never had are a ValueError; continuous ones go to the outermost bins."""
        check_ready(self)
        times, rows = self._split(raw)
        if rows.shape[1] != len(self.columns):
            raise ValueError(
                f"the actions have {rows.shape[1]} numbers a step, but the tokenizer takes {len(self.columns)}"
            )
        known = np.isfinite(rows)
        ids = np.zeros(rows.shape, np.int64)
        for place, (edges, values) in enumerate(self.columns):
            column = np.where(known[:, place], rows[:, place], values[0])
            inside = np.searchsorted(edges, column, side="right")
            if self.discrete[place] and not (right := values[inside] == column).all():
                told = ", ".join(f"{value:g}" for value in values[:20])
                wrong = column[~right][0]
                raise ValueError(f"the action {wrong:g} of column {place} was not in the training data; known: {told}")
            ids[:, place] = self._firsts[place] + inside
        step, which = np.nonzero(known)
        return Tokens(ids[known], np.stack([times[step], which], axis=1).astype(np.float64))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> np.ndarray:
        """Without coords, tokens are taken to be whole steps, one after the other."""
        check_ready(self)
        ids = np.asarray(values).reshape(-1)
        kept = (ids >= 0) & (ids < self._firsts[-1])
        ids = ids[kept]
        which = np.searchsorted(self._firsts, ids, side="right") - 1
        if coords is None:
            times = np.arange(len(ids)) // max(1, len(self.columns)) * self.config.step
        else:
            times = np.asarray(coords, np.float64)[kept, 0]
        distinct, step = np.unique(times, return_inverse=True)
        out = np.full((len(distinct), len(self.columns)), np.nan, np.float32)
        table = np.concatenate([found for _, found in self.columns])
        out[step, which] = table[ids]
        if self.config.time is None:
            return out
        return np.insert(out, self.config.time, distinct, axis=1)

    def piece(self, id: int) -> str:
        if not 0 <= id < self._firsts[-1]:
            return super().piece(id)
        place = int(np.searchsorted(self._firsts, id, side="right")) - 1
        return f"{place}:{self.columns[place][1][id - self._firsts[place]]:.3g}"

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        columns = [
            {"discrete": few, "edges": edges.tolist(), "values": values.tolist()}
            for few, (edges, values) in zip(self.discrete, self.columns)
        ]
        return [*names, write_record(folder, {"columns": columns})]

    def restore(self, folder: Path) -> None:
        path, listed = read_columns(folder)
        columns = []
        for one in listed:
            found = read_bins(path, one, "values")
            if found is None or type(one.get("discrete")) is not bool:
                raise CheckpointError(f"{path}: the bins of a column are not in order")
            columns.append(found)
        self._adopt(columns, [one["discrete"] for one in listed])

    def _adopt(self, columns: list[tuple[np.ndarray, np.ndarray]], discrete: list[bool]) -> None:
        self.columns, self.discrete = columns, discrete
        self._firsts = np.concatenate([[0], np.cumsum([len(values) for _, values in columns])]).astype(np.int64)
        self.specials = {"pad": int(self._firsts[-1]), "mask": int(self._firsts[-1]) + 1}
        self.size = int(self._firsts[-1]) + 2


def bins(distinct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One bin for each of some values, in order: (the middles between them, the values)."""
    return (distinct[1:] + distinct[:-1]) / 2, distinct


def actions(raw: Any) -> np.ndarray:
    """Actions as [T A] float64, from an array [T] or [T A] of numbers; ValueError, one line, if it is none."""
    if not isinstance(raw, np.ndarray):
        raise ValueError(f"actions are an array [steps] or [steps numbers], not {type(raw).__name__}")
    if raw.ndim not in (1, 2) or raw.dtype.kind not in "iufb":
        raise ValueError(f"actions are an array [steps] or [steps numbers], not {list(raw.shape)} {raw.dtype}")
    if raw.size == 0:
        raise ValueError("the actions are empty: no step")
    rows = raw[:, None] if raw.ndim == 1 else raw
    if np.isinf(rows).any() or np.isnan(rows).all():
        raise ValueError("the actions hold an infinite number, or none at all: clean them")
    return rows.astype(np.float64)
