"""Windows of one length, cut from documents that are laid end to end: no padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch

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
        self.count = len(line) // self.length

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Key) -> Item:
        values, coords, segments = self._read([key])
        return {self.stream: Tokens(values[0], coords[0], None if segments is None else segments[0])}

    def batch(self, keys: Sequence[Key]) -> tuple[Batch | None, list[BadSample], int]:
        values, coords, segments = self._read(keys)
        known = None if segments is None else torch.from_numpy(segments)
        stream = Stream(torch.from_numpy(values), torch.from_numpy(coords), None, known)
        return {self.stream: stream}, [], len(keys)

    def _read(self, keys: Sequence[Key]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """values [b n], coords [b n 1], segments [b n], or None where there is one document."""
        starts, line = self._starts(np.array(keys, np.int64)), self.line
        values = line.windows(starts, self.length)
        if len(line.begins) == 1:
            return values, np.tile(np.arange(self.length), (len(starts), 1))[..., None], None
        first = np.searchsorted(line.begins, starts, side="right") - 1
        runs = np.searchsorted(line.begins, starts + self.length, side="left") - first
        row = np.repeat(np.arange(len(starts)), runs)
        number = np.arange(len(row)) - np.repeat(np.cumsum(runs) - runs, runs)
        begin = np.maximum(line.begins[first[row] + number] - starts[row], 0) + row * self.length
        lengths = np.diff(begin, append=values.size)
        segments = np.repeat(number, lengths).reshape(values.shape)
        coords = (np.arange(values.size) - np.repeat(begin, lengths)).reshape(values.shape)
        return values, coords[..., None], segments

    def _starts(self, keys: np.ndarray) -> np.ndarray:
        epochs, places = keys.T
        starts = places * self.length
        if not self.views or self.count < 2:
            return starts
        for epoch in np.unique(epochs).tolist():
            starts[epochs == epoch] += _offset(self.seed, epoch, self.length)
        return np.minimum(starts, len(self.line) - self.length)


@lru_cache(maxsize=8)
def _offset(seed: int, epoch: int, length: int) -> int:
    return int(numpy_generator(seed, "offset", epoch).integers(0, length))
