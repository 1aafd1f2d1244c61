"""Documents laid end to end: a line of ids, in memory or in memory-mapped files, of which windows are read without a copy of
the whole.

    line     d d d d e e f f f f f …      begins  0 4 6 …      a window is line[start : start + length]
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sevenfold.core.errors import DataError

OPEN = 256
"""Files that are mapped at one time."""
Ends = tuple[list[int], list[int]]
"""The ids that stand before and behind each item."""


class Files:
    """How a line opens its files: as they lie here."""

    def __init__(self, group: int | None = None):
        """`group`: how many files are to be read at a time; None: all, in any order."""
        self.group = group
        self.most = OPEN if group is None else group + 2

    def opened(self, path: Path) -> np.ndarray:
        """The ids of a file, mapped to memory; DataError if it holds something else."""
        return mapped(path)

    def ahead(self, paths: Sequence[Path]) -> None:
        """Some files will be opened next."""


class Line:
    """Ids of documents, one after the other."""

    def __init__(
        self,
        pieces: Sequence[np.ndarray | Path],
        sizes: Sequence[int],
        begins: np.ndarray,
        files: Files | None = None,
        held: Sequence[int] | None = None,
    ):
        """`pieces`: arrays [n] of whole numbers, or .npy files that hold one; `sizes`: the n of each; `begins` [documents]:
        where each document begins, rising from 0; `files`: opens them; `held`: how many ids a file holds, where more than are
        taken of it."""
        self.pieces, self.begins, self.files = list(pieces), begins, files or Files()
        self.sizes = np.asarray(sizes, np.int64)
        self.ends = np.cumsum(self.sizes)
        self.held = self.sizes if held is None else np.asarray(held, np.int64)
        self._mapped: OrderedDict[int, np.ndarray] = OrderedDict()
        self._windows: tuple[int, int, np.ndarray] | None = None

    def part(self, first: int, stop: int) -> Line:
        """The line of some pieces, from one to before another."""
        start, end = (int(self.ends[number - 1]) if number else 0 for number in (first, stop))
        low, high = np.searchsorted(self.begins, [start, end])
        begins = np.asarray(self.begins[low:high]) - start
        begins = begins if len(begins) and begins[0] == 0 else np.concatenate([[0], begins])
        return Line(
            self.pieces[first:stop], self.sizes[first:stop].tolist(), begins, self.files, self.held[first:stop].tolist()
        )

    def cut(self, tokens: int) -> Line:
        """Its first tokens."""
        sizes = np.diff(np.minimum(self.ends, tokens), prepend=0)
        kept = int(np.count_nonzero(sizes))
        begins = self.begins[: int(np.searchsorted(self.begins, tokens))]
        return Line(self.pieces[:kept], sizes[:kept].tolist(), begins, self.files, self.held[:kept].tolist())

    def ahead(self, numbers: Sequence[int]) -> None:
        """Some pieces will be asked for next."""
        self.files.ahead([piece for number in numbers if isinstance(piece := self.pieces[number], Path)])

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_mapped": OrderedDict(), "_windows": None}

    def read(self, start: int, stop: int) -> np.ndarray:
        """Ids start…stop, [stop - start] int64."""
        found, number = [], int(np.searchsorted(self.ends, start, side="right"))
        while start < stop:
            before = int(self.ends[number - 1]) if number else 0
            upto = min(stop, int(self.ends[number]))
            found.append(self.piece(number)[start - before : upto - before])
            start, number = upto, number + 1
        return np.concatenate([*found, np.zeros(0, np.int64)]).astype(np.int64, copy=False)

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """The `length` ids from each of `starts` [b], [b length] int64: gathered from each file at once."""
        if len(self.pieces) == 1:
            return self._gathered(0, starts, length).astype(np.int64)
        number = np.searchsorted(self.ends, starts, side="right")
        last = np.searchsorted(self.ends, starts + length - 1, side="right")
        if number[0] == last[0] == number.min() == last.max():
            return self._gathered(int(number[0]), starts, length).astype(np.int64)
        values = np.empty((len(starts), length), np.int64)
        inside = number == last
        for piece in np.unique(number[inside]).tolist():
            rows = inside & (number == piece)
            values[rows] = self._gathered(piece, starts[rows], length)
        for row in np.flatnonzero(~inside).tolist():
            values[row] = self.read(int(starts[row]), int(starts[row]) + length)
        return values

    def _gathered(self, number: int, starts: np.ndarray, length: int) -> np.ndarray:
        if self._windows is None or self._windows[:2] != (number, length):
            array = self.piece(number)
            step = array.strides[0]
            every = np.lib.stride_tricks.as_strided(
                array, (len(array) - length + 1, length), (step, step), writeable=False
            )  # all windows of the piece, sharing its memory
            self._windows = number, length, every
        gathered: np.ndarray = self._windows[2][starts - self.ends[number - 1] if number else starts]
        return gathered

    def piece(self, number: int) -> np.ndarray:
        piece = self.pieces[number]
        if isinstance(piece, np.ndarray):
            return piece
        if number not in self._mapped:
            array = self.files.opened(piece)
            if len(array) != self.held[number]:
                raise DataError(f"{piece}: holds {len(array):,} ids instead of {self.held[number]:,}")
            self._mapped[number] = array[: self.sizes[number]]
            while len(self._mapped) > self.files.most:
                self._mapped.popitem(last=False)
        return self._mapped[number]


def mapped(path: Path) -> np.ndarray:
    """The array of a .npy file [n] of whole numbers, mapped to memory; DataError if it is something else."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: is missing") from None
    except Exception as error:  # a damaged header raises anything
        why = (str(error) or repr(error)).splitlines()[0]
        raise DataError(f"{path}: is not a whole .npy file: {why}") from None
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{path}: does not hold a line of whole numbers")
    return np.asarray(array)


def narrowest(ids: int | None) -> np.dtype:
    """The smallest kind of whole number that holds ids 0…ids-1 (int64 where nobody knows)."""
    return np.dtype("<i8" if ids is None else "<u2" if ids <= 1 << 16 else "<u4")


def joined(
    found: Iterable[tuple[int, np.ndarray]], follows: Callable[[int], bool], ends: Ends | None
) -> Iterator[tuple[int, np.ndarray, bool]]:
    """(index, ids) of samples in order → (index, ids, whether a document begins there): a sample that goes on where the one
    before it ends is of the same document, and the end and begin tokens between the two are taken out."""
    before: tuple[int, np.ndarray, bool] | None = None
    for index, values in found:
        on = before is not None and before[0] == index - 1 and follows(index)
        if before is not None:
            yield (before[0], _ended(before[1], ends), before[2]) if on else before
        before = (index, _begun(values, ends) if on else values, not on)
    if before is not None:
        yield before


def _ended(values: np.ndarray, ends: Ends | None) -> np.ndarray:
    end = ends[1] if ends else []
    return values[: len(values) - len(end)] if end and values[-len(end) :].tolist() == end else values


def _begun(values: np.ndarray, ends: Ends | None) -> np.ndarray:
    begin = ends[0] if ends else []
    return values[len(begin) :] if begin and values[: len(begin)].tolist() == begin else values
