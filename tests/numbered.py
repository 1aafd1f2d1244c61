"""A source of numbered texts, some of which cannot be read, and the order in which a loader gives them."""

from __future__ import annotations

import numpy as np

from sevenfold.core.errors import BadSample
from sevenfold.core.types import Tokens
from sevenfold.data.loader import Items


class Numbers:
    """A source of `size` texts; those in `broken` cannot be read; a new document begins at each of `begins`."""

    def __init__(self, size, broken=(), begins=(), lengths=None):
        self.size, self.broken, self.begins = size, set(broken), set(begins)
        self.lengths = lengths or [3] * size

    shelves = None

    def at_hand(self, indices):
        return len(indices)

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index in self.broken:
            raise BadSample(self.where(index), "is broken")
        return {"text": index}

    def where(self, index):
        return f"numbers.txt:line {index + 1}"

    def follows(self, index):
        return index not in self.begins

    def encode(self, raw, generator):
        n = self.lengths[raw]
        return Tokens(1000 * raw + np.arange(n), np.arange(n)[:, None])


def items(source, seed=0, views=True):
    return Items(source, range(len(source)), {"text": ("text", source.encode)}, seed, views)


def samples(batches):
    """The number of each sample, in order."""
    return [int(row[0]) // 1000 for batch, _, _ in batches for row in batch["text"].values]
