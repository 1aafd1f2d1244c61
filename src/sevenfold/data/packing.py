"""Whole items of unequal length packed into rows of one length, with a number for each item (`segments`) instead of padding.

Which lengths share a row is settled once, for all items, by best fit of the longest first: it depends on how often each length
occurs and on nothing else (Krell et al. 2021, arXiv:2107.02027). Which of the items of that length it is, is drawn anew in each
epoch from (seed, epoch). So every epoch has the same number of rows, each item stands in exactly one of them, and any row of any
epoch is found without the ones before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sevenfold.core.errors import BadSample
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Batch, Stream, Tokens
from sevenfold.data.line import Line
from sevenfold.data.loader import Item, Key, Samples

Pattern = tuple[tuple[int, ...], int]
"""(the lengths of a row's items, how many rows are like that)"""


def best_fit(counts: np.ndarray, length: int) -> list[Pattern]:
    """Rows of `length` for items of which `counts[l]` have length l, 1 ≤ l ≤ length: the longest first, each into the row where
    it leaves the least room."""
    room: dict[int, list[Pattern]] = {}
    for size in range(min(len(counts) - 1, length), 0, -1):
        left, free = int(counts[size]), size
        while left:
            while free < length and not room.get(free):
                free += 1
            taken, rows = room[free].pop() if room.get(free) else ((), left)
            times = free // size
            whole = min(rows, left // times)
            rest = left % times if whole < rows and left // times == whole else 0
            for many, each in ((whole, times), (1 if rest else 0, rest)):
                if many:
                    room.setdefault(free - each * size, []).append(((*taken, *[size] * each), many))
                    rows, left = rows - many, left - many * each
            if rows and taken:
                room[free].append((taken, rows))
    return [pattern for free in sorted(room) for pattern in room[free]]


class Rows(Samples):
    """A line's documents packed into rows. Documents longer than a row are cut into pieces of its length. Tokens count their
    positions from the start of their document or piece; the free places behind the last one are no tokens (`valid`)."""

    def __init__(self, line: Line, stream: str, length: int, seed: int, views: bool):
        """`views`: whether each epoch draws other rows (training)."""
        self.line, self.stream, self.length, self.seed, self.views = line, stream, length, seed, views
        self._orders: dict[int, np.ndarray] = {}
        begins = np.asarray(line.begins)
        sizes = np.diff(begins, append=len(line))
        pieces = -(-sizes // length)
        number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        self.starts = np.repeat(begins, pieces) + number * length
        self.sizes = np.minimum(np.repeat(sizes, pieces) - number * length, length)
        self._lay(best_fit(np.bincount(self.sizes), length))

    def _lay(self, patterns: Sequence[Pattern]) -> None:
        """Give each place of each row the rank of its item among all, ordered by length."""
        count = sum(rows for _, rows in patterns)
        row_of = numpy_generator("rows").permutation(count)  # alike rows are not neighbours
        ranks = np.cumsum(np.bincount(self.sizes))
        used = ranks - np.bincount(self.sizes)
        filled = np.zeros(count, np.int64)
        rows, items, done = [], [], 0
        for lengths, many in patterns:
            for size in lengths:
                rows.append(row_of[done : done + many])
                items.append(np.arange(used[size], used[size] + many))
                used[size] += many
            filled[row_of[done : done + many]] = len(lengths)
            done += many
        order = np.argsort(np.concatenate(rows), kind="stable")
        self.items, self.ends = np.concatenate(items)[order], np.cumsum(filled)

    @staticmethod
    def count_of(line: Line, length: int) -> int:
        """How many there are of a line."""
        return len(Rows(line, "", length, 0, False))

    @property
    def fill(self) -> float:
        """The share of places that hold a token."""
        return len(self.line) / (len(self) * self.length)

    def __len__(self) -> int:
        return len(self.ends)

    def holds(self, key: Key) -> np.ndarray:
        """The numbers of the items in a row."""
        epoch, row = key
        return self._order(epoch if self.views else 0)[self.items[(self.ends[row - 1] if row else 0) : self.ends[row]]]

    def _order(self, epoch: int) -> np.ndarray:
        """The items by length, those of one length in the order of an epoch."""
        if epoch not in self._orders:
            draw = numpy_generator(self.seed, "packing", epoch)
            self._orders = dict(list(self._orders.items())[-1:])  # a batch may hold the end of one epoch and the next
            self._orders[epoch] = np.lexsort((draw.permutation(len(self.sizes)), self.sizes))
        return self._orders[epoch]

    def __getitem__(self, key: Key) -> Item:
        values, coords, valid, segments = self._read([key])
        return {self.stream: Tokens(values[0], coords[0], segments[0]).slice(0, int(valid.sum()))}

    def batch(self, keys: Sequence[Key]) -> tuple[Batch | None, list[BadSample], int]:
        return {self.stream: Stream(*(torch.from_numpy(part) for part in self._read(keys)))}, [], len(keys)

    def _read(self, keys: Sequence[Key]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """values [b n], coords [b n 1], valid [b n], segments [b n]: free places are a segment of their own."""
        shape = (len(keys), self.length)
        values, coords, segments = (np.zeros(shape, np.int64) for _ in range(3))
        valid = np.zeros(shape, bool)
        count = np.arange(self.length)
        for row, key in enumerate(keys):
            place = number = 0
            for item in self.holds(key).tolist():
                start, size = int(self.starts[item]), int(self.sizes[item])
                values[row, place : place + size] = self.line.read(start, start + size)
                coords[row, place : place + size] = count[:size]
                segments[row, place : place + size] = number
                place, number = place + size, number + 1
            valid[row, :place] = True
            segments[row, place:] = number
        return values, coords[..., None], valid, segments
