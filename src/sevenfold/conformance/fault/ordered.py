"""Loader processes: with 0, 1 or 4 of them every sample of an epoch comes exactly once, in the same order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sevenfold.conformance.fault import Outcome
from sevenfold.conformance.fault._kit import Tally
from sevenfold.core.types import Tokens
from sevenfold.data.loader import Item, Key, Order, Samples, load

TRIES = 6
WORKERS = (0, 1, 4)


class Counted(Samples):
    """Items that hold their own number."""

    def __init__(self, size: int):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: Key) -> Item:
        return {"number": Tokens(np.array([key[1]]), np.zeros((1, 1)))}


def tried(folder: Path, tries: int) -> Iterator[Outcome]:
    """Sets of random sizes, two epochs, begun at a random step."""
    tally, draw = Tally(), random.Random(0)
    for _ in range(tries):
        size, batch, seed = draw.randint(3, 300), draw.randint(1, 16), draw.randrange(2**31)
        steps = -(-2 * size // batch)
        start = draw.randrange(steps)
        found = []
        for workers in WORKERS:
            order = Order(size, batch, seed, 0, steps)
            rows = [int(n) for got, _, _ in load(Counted(size), order, workers) if got for n in got["number"].values]
            later = Order(size, batch, seed, start, steps)
            rest = [int(n) for got, _, _ in load(Counted(size), later, workers) if got for n in got["number"].values]
            wrong = "" if rest == rows[start * batch :] else f"begun at step {start}, the order is another"
            once = all(sorted(rows[e * size : (e + 1) * size]) == list(range(size)) for e in range(2))
            found.append((rows, wrong or ("" if once else "an epoch lacks samples, or has some twice")))
        wrong = next((wrong for _, wrong in found if wrong), "")
        same = all(rows == found[0][0] for rows, _ in found)
        tally.note(wrong or ("" if same else f"another order with workers (size {size}, batch {batch})"))
    yield tally.outcome("workers 0, 1, 4: two epochs, and begun in the middle", "each sample once, same order")
