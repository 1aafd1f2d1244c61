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
        starts, line = self._starts(np.array(keys, np.int64)), self.line
        values = torch.from_numpy(line.windows(starts, self.length))
        if len(line.begins) == 1:
            return values, self._count.expand(len(starts), -1, -1), None
        first = np.searchsorted(line.begins, starts, side="right") - 1
        runs = np.searchsorted(line.begins, starts + self.length, side="left") - first
        row = np.repeat(np.arange(len(starts)), runs)
        number = np.arange(len(row)) - np.repeat(np.cumsum(runs) - runs, runs)
        begin = np.maximum(line.begins[first[row] + number] - starts[row], 0) + row * self.length
        lengths = np.empty_like(begin)
        lengths[:-1], lengths[-1] = begin[1:] - begin[:-1], values.numel() - begin[-1]
        segments, coords = (torch.from_numpy(np.repeat(part, lengths)) for part in (number, begin))
        torch.sub(torch.arange(values.numel()), coords, out=coords)
        return values, coords.view(*values.shape, 1), segments.view(values.shape)

    def _starts(self, keys: np.ndarray) -> np.ndarray:
        epochs, places = keys.T
        starts = places * self.length
        if not self.views or self.count < 2:
            return starts
        for epoch in set(epochs.tolist()):
            starts += (epochs == epoch) * _offset(self.seed, epoch, self.length)
        return np.minimum(starts, len(self.line) - self.length)


@lru_cache(maxsize=8)
def _offset(seed: int, epoch: int, length: int) -> int:
    return int(numpy_generator(seed, "offset", epoch).integers(0, length))
