"""Windows of one length, cut from documents that are laid end to end: no padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sevenfold.core.errors import BadSample, DataError
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Batch, Stream, Tokens
from sevenfold.data.line import Ends, Line, joined, narrowest
from sevenfold.data.loader import Item, Items, Key, Samples


def laid(
    items: Items,
    stream: str,
    continuous: bool,
    note: Callable[[BadSample], None],
    ends: Ends | None = None,
    ids: int | None = None,
) -> Line:
    """The tokens of all items as one line in memory.

    continuous  all samples are pieces of one document
    note        is told of samples that cannot be read
    ends        the ids before and behind each item: between pieces of one document they are taken out
    ids         how many ids there are
    """

    def found():
        for place, index in enumerate(items.indices):
            item = items[0, place]
            if isinstance(item, BadSample):
                note(item)
            elif stream in item:
                yield index, item[stream].values.astype(kept)

    kept = narrowest(ids)
    begins, documents, start = [], [], 0
    for _, values, new in joined(found(), items.source.follows, ends):
        if new:
            begins.append(start)
        documents.append(values)
        start += len(values)
    if not documents:
        raise DataError(f"{items.source.where(0)}: no readable sample for stream {stream!r}")
    return Line([np.concatenate(documents)], [start], np.array([0] if continuous else begins, np.int64))


class Windows(Samples):
    """A line cut into windows. Tokens know which document they are from (`segments`), and count their positions from its
    start. Each epoch cuts at another offset."""

    def __init__(self, line: Line, stream: str, length: int, seed: int, views: bool):
        """`views`: whether offsets are drawn (training)."""
        self.line, self.stream, self.seed, self.views = line, stream, seed, views
        self.length = min(length, len(line))
        self.count = self.count_of(line, length)
        self._count = torch.arange(self.length)[None, :, None]

    @staticmethod
    def count_of(line: Line, length: int) -> int:
        """How many there are of a line."""
        return len(line) // min(length, len(line))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Key) -> Item:
        values, coords, segments = self._read([key])
        known = None if segments is None else segments[0].numpy()
        return {self.stream: Tokens(values[0].numpy(), coords[0].numpy(), known)}

    def batch(self, keys: Sequence[Key]) -> tuple[Batch | None, list[BadSample], int]:
        values, coords, segments = self._read(keys)
        return {self.stream: Stream(values, coords, None, segments)}, [], len(keys)

    def _read(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor, Tensor | None]:
        """values [b n], coords [b n 1], segments [b n], or None where there is one document."""
        starts, line, length = self._starts(keys), self.line, self.length
        values = torch.from_numpy(line.windows(starts, length))
        if len(line.begins) == 1:
            return values, self._count.expand(len(starts), -1, -1), None
        # all runs of one document in all windows: the first of a window begins at its start, each other where its document does
        first = line.begins.searchsorted(starts, "right")
        runs = line.begins.searchsorted(starts + length) - first + 1
        ends = runs.cumsum()
        before = ends - runs
        number = _counting(int(ends[-1])) - before.repeat(runs)
        rows = _counting(len(starts)) * length
        begin = line.begins[number + (first - 1).repeat(runs)] - (starts - rows).repeat(runs)
        begin[before] = rows
        lengths = np.empty_like(begin)
        np.subtract(begin[1:], begin[:-1], out=lengths[:-1])
        lengths[-1] = len(starts) * length - begin[-1]
        coords = begin.repeat(lengths)
        np.subtract(_counting(len(coords)), coords, out=coords)
        segments = number.repeat(lengths)
        return values, torch.from_numpy(coords.reshape(-1, length, 1)), torch.from_numpy(segments.reshape(-1, length))

    def _starts(self, keys: Sequence[Key]) -> np.ndarray:
        epochs, places = zip(*keys)
        starts = np.array(places, np.int64) * self.length
        if not self.views or self.count < 2:
            return starts
        if epochs.count(epochs[0]) == len(epochs):
            starts += _offset(self.seed, epochs[0], self.length)
        else:
            starts += np.array([_offset(self.seed, epoch, self.length) for epoch in epochs])
        return np.minimum(starts, len(self.line) - self.length)


@lru_cache(maxsize=4)
def _many(count: int) -> np.ndarray:
    found = np.arange(count)
    found.flags.writeable = False
    return found


def _counting(count: int) -> np.ndarray:
    """0 … count - 1: read only, and made once."""
    return _many(1 << (count - 1).bit_length())[:count] if count else _many(1)[:0]


@lru_cache(maxsize=8)
def _offset(seed: int, epoch: int, length: int) -> int:
    return int(numpy_generator(seed, "offset", epoch).integers(0, length))
