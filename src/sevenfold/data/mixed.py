"""Several sets as one to train on, each with its share: which item comes when is a function of (seed, epoch, place).

An epoch has as many items as all sets together, and of each set its share of them, rounded once. A set is passed through in an order
of its own, drawn anew for each pass, and goes on in the next epoch where it stopped: over many epochs each of its items comes
equally often.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import torch

from sevenfold.core.errors import BadSample
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Batch, Stream
from sevenfold.data.loader import Fetched, Item, Key, Samples, gather

BLOCK = 1 << 14
"""Items of a mixture that are shuffled together where a set of it comes in an order of its own."""


def shares_of(weights: Sequence[float], temperature: float) -> list[float]:
    """Shares that add up to 1."""
    logs = np.log(np.asarray(weights, np.float64)) / temperature
    raised = np.exp(logs - logs.max())
    found: list[float] = (raised / raised.sum()).tolist()
    return found


def rounded(shares: Sequence[float], size: int) -> list[int]:
    """How many of `size` items each share gets: to the nearest, by the largest rest, and one at least."""
    wanted = np.asarray(shares) * size
    counts = np.floor(wanted).astype(np.int64)
    counts[np.argsort(-(wanted - counts), kind="stable")[: size - int(counts.sum())]] += 1
    found: list[int] = np.maximum(counts, 1).tolist()
    return found


class Interleaved:
    """An order of an epoch in which the items of each set come one after the other, and the sets are mixed: stretches of about BLOCK
    items hold each set's share of them, shuffled. Found for any place without those before it."""

    def __init__(self, counts: Sequence[int], *seed: int | str):
        self.counts, self.seed = np.asarray(counts, np.int64), seed
        self.ends = np.cumsum([0, *counts])
        self.blocks = -(-int(self.ends[-1]) // BLOCK)
        cuts = self.counts[:, None] * np.arange(self.blocks + 1) // self.blocks
        self.cuts, self.starts = cuts, cuts.sum(0)
        self._block: tuple[int, np.ndarray] | None = None

    def __getitem__(self, place: int) -> int:
        block = int(np.searchsorted(self.starts, place, side="right")) - 1
        if self._block is None or self._block[0] != block:
            low, high = self.cuts[:, block], self.cuts[:, block + 1]
            which = numpy_generator(*self.seed, block).permutation(np.repeat(np.arange(len(low)), high - low))
            items = np.empty(len(which), np.int64)
            for number in range(len(low)):
                items[which == number] = np.arange(low[number], high[number]) + self.ends[number]
            self._block = block, items
        return int(self._block[1][place - int(self.starts[block])])


class Mixed(Samples):
    """Sets with shares. Where nothing is drawn (held out), each item of each set comes once, one set after the other."""

    def __init__(self, sets: dict[str, Samples], shares: Sequence[float], seed: int, views: bool):
        """`views`: whether items are drawn by their shares (training)."""
        self.sets, self.seed, self.views = list(sets.values()), seed, views
        sizes = [len(one) for one in self.sets]
        self.counts = dict(zip(sets, rounded(shares, sum(sizes)) if views else sizes))
        """Name → how many of an epoch's items are of this set."""
        self.ends = list(accumulate(self.counts.values(), initial=0))
        self._orders: dict[tuple[int, int], np.ndarray] = {}
        self._interleaved: Interleaved | None = None

    def __len__(self) -> int:
        return self.ends[-1]

    @property
    def passes(self) -> dict[str, float]:
        """Name → how often an epoch passes through this set."""
        return {name: count / len(one) for (name, count), one in zip(self.counts.items(), self.sets)}

    def place(self, key: Key) -> tuple[int, Key]:
        """(which set, the key there)."""
        epoch, place = key
        number = bisect_right(self.ends, place) - 1
        own = place - self.ends[number]
        if not self.views:
            return number, (epoch, own)
        count, size = self.ends[number + 1] - self.ends[number], len(self.sets[number])
        turn, rest = divmod(epoch * count + own, size)
        arranged = self.sets[number].arranged(turn)
        return number, (turn, arranged[rest] if arranged is not None else int(self._order(number, turn, size)[rest]))

    def arranged(self, epoch: int) -> Interleaved | None:
        if not self.views or not any(one.arranged(0) is not None for one in self.sets):
            return None
        if self._interleaved is None or self._interleaved.seed[-1] != epoch:
            self._interleaved = Interleaved(list(self.counts.values()), self.seed, "mix", epoch)
        return self._interleaved

    def _order(self, number: int, turn: int, size: int) -> np.ndarray:
        if (number, turn) not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key[0] != number or key[1] == turn - 1}
            self._orders[number, turn] = numpy_generator(self.seed, "mix", number, turn).permutation(size)
        return self._orders[number, turn]

    def __getitem__(self, key: Key) -> Item | BadSample:
        number, own = self.place(key)
        return self.sets[number][own]

    def batch(self, keys: Sequence[Key]) -> Fetched:
        return from_each([self.place(key) for key in keys], self.sets.__getitem__)


def from_each(places: Sequence[tuple[int, Key]], sets: Callable[[int], Samples]) -> Fetched:
    """What is asked of several sets, (which set, the key there) each, as one batch in that order."""
    rows: dict[int, list[int]] = {}
    for row, (number, _) in enumerate(places):
        rows.setdefault(number, []).append(row)
    found = [sets(number).batch([places[row][1] for row in some]) for number, some in rows.items()]
    batches = [batch for batch, bad, _ in found if batch is not None and not bad]
    shapes = {(name, stream.values.shape[1:]) for batch in batches for name, stream in batch.items()}
    if len(batches) < len(found) or len(shapes) > 1 or any(s.frames is not None for b in batches for s in b.values()):
        return gather([sets(number)[own] for number, own in places])
    order = torch.tensor([row for some in rows.values() for row in some]).argsort()
    return _together(batches, order), [], len(places)


def _together(batches: Sequence[Batch], order: torch.Tensor) -> Batch:
    """Batches of one stream of one length as one, its rows in `order`."""
    (name,) = batches[0]
    streams = [batch[name] for batch in batches]
    valid, segments = (any(getattr(one, field) is not None for one in streams) for field in ("valid", "segments"))
    return {
        name: Stream(
            torch.cat([one.values for one in streams])[order],
            torch.cat([one.coords for one in streams])[order],
            torch.cat([_or(one.valid, one, torch.bool, 1) for one in streams])[order] if valid else None,
            torch.cat([_or(one.segments, one, torch.long, 0) for one in streams])[order] if segments else None,
        )
    }


def _or(given: torch.Tensor | None, stream: Stream, dtype: torch.dtype, value: int) -> torch.Tensor:
    return torch.full(stream.values.shape[:2], value, dtype=dtype) if given is None else given
