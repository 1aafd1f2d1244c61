"""From a source to batches, exactly: which sample comes when, and every random choice made on it, is a function of
(seed, epoch, index). Nothing depends on the number of workers, and a resumed run continues in mid-epoch.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sevenfold.core.errors import BadSample, ConfigError, DataError
from sevenfold.core.seeds import numpy_generator, torch_generator
from sevenfold.core.types import Batch, Tokens
from sevenfold.data.arranged import Arranged, Moving, Places
from sevenfold.data.bad import ENOUGH, BadSamples
from sevenfold.data.collate import collate
from sevenfold.data.numbers import packed
from sevenfold.data.source import Source

Encoder = Callable[[Any, np.random.Generator | None], Tokens]
Look = Callable[[Any, np.random.Generator | None, np.random.Generator], Tokens]
Item = dict[str, Tokens]
Key = tuple[int, int]
"""(epoch, index)"""
Fetched = tuple[Batch | None, list[BadSample], int]
"""Good items as a batch (None if there are none), the bad ones, and how many were asked for."""


class Aligned(NamedTuple):
    """A stream that says something of every token of another one, of which `around` are begin and end tokens; items are cut to
    so many tokens."""

    stream: str
    of: str
    around: int
    length: int | None
    of_length: int | None

    def check(self, item: Item) -> None:
        """ValueError, one line, if an item has not one for each, unless it was cut."""
        if self.stream not in item or self.of not in item:
            return
        said, there = len(item[self.stream].values), len(item[self.of].values)
        tokens = there - self.around
        if (said > tokens and there != self.of_length) or (said < tokens and said != self.length):
            raise ValueError(
                f"{self.stream} has {said} labels, and {self.of} {tokens} tokens: there must be one for each "
                "(tokenizers with a token a letter: residue, kmer with k: 1, characters)"
            )


class Samples(Dataset[Item | BadSample]):
    """What is trained on: items by (epoch, place), or why one cannot be read."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, key: Key) -> Item | BadSample:
        raise NotImplementedError

    def batch(self, keys: Sequence[Key]) -> Fetched:
        """Those of some keys as one batch."""
        return gather([self[key] for key in keys])

    def arranged(self, epoch: int) -> Places | None:
        """The order of an epoch's items, where the set has one of its own (few of its files at a time); None: any order will do."""
        return None

    def __getitems__(self, keys: Sequence[Key]) -> Fetched:
        """What PyTorch's loader asks for."""
        return self.batch(keys)


class Items(Samples):
    """One sample, one item: each stream's tokens, encoded when asked for."""

    def __init__(
        self,
        source: Source,
        indices: Sequence[int],
        encoders: Mapping[str, tuple[str, Encoder]],
        seed: int,
        views: bool,
        looks: Mapping[str, tuple[str, Look]] | None = None,
        aligned: Sequence[Aligned] = (),
        lacking: Mapping[str, Collection[int]] | None = None,
    ):
        """`encoders`: stream → (the sample's field, what makes tokens of it). `views`: make random changes (training).
        `looks`: the same for streams whose items are changed always; what makes tokens is given two generators, of which the
        first is None unless `views`. `aligned`: streams that say something of another one's tokens.
        `lacking`: field → the samples whose value is taken away."""
        self.source, self.encoders = source, dict(encoders)
        self.indices = packed(indices)
        self.seed, self.views, self.looks = seed, views, dict(looks or {})
        self.lacking, self.aligned = dict(lacking or {}), tuple(aligned)
        shelves = source.shelves
        self._order = None if shelves is None else Arranged(shelves.of(self.indices), seed)

    def of(self, indices: Sequence[int]) -> Items:
        """The same of other samples."""
        rest = (self.looks, self.aligned, self.lacking)
        return Items(self.source, indices, self.encoders, self.seed, self.views, *rest)

    def __len__(self) -> int:
        return len(self.indices)

    def arranged(self, epoch: int) -> Moving | None:
        return None if self._order is None else self._order.epoch(epoch)

    def batch(self, keys: Sequence[Key]) -> Fetched:
        if self._order is not None:
            self._order.reading([(epoch, self._order.part_of(place)) for epoch, place in keys], self.views)
        return super().batch(keys)

    def __getitem__(self, key: Key) -> Item | BadSample:
        epoch, place = key
        index = self.indices[place]
        try:
            sample = self.source[index]
            if self.lacking:
                sample = {field: raw for field, raw in sample.items() if index not in self.lacking.get(field, ())}
            item = {}
            for stream, (field, encode) in self.encoders.items():
                raw = sample.get(field)
                if raw is not None:
                    generator = numpy_generator(self.seed, "view", stream, epoch, index) if self.views else None
                    item[stream] = encode(raw, generator)
            for name, (field, look) in self.looks.items():
                raw = sample.get(field)
                if raw is not None:
                    generator = numpy_generator(self.seed, "view", name, epoch, index) if self.views else None
                    item[name] = look(raw, generator, numpy_generator(self.seed, "look", name, epoch, index))
            if not item:
                return BadSample(self.source.where(index), "holds none of the streams")
            for pair in self.aligned:
                pair.check(item)
            return item
        except BadSample as error:
            return error
        except ValueError as error:
            return BadSample(self.source.where(index), str(error).splitlines()[0])


def look_through(items: Items, share: float) -> None:
    """DataError, before anything is trained, if too many of up to 100 items, evenly spaced, cannot be read: more than
    `share` where these are all there are, otherwise half of them."""
    here = items.source.at_hand(items.indices)
    every = max(1, here // ENOUGH)
    places = range(0, here, every)
    bad = BadSamples(share if len(places) == len(items) else max(share, 0.5), len(places))
    for place in places:
        found = items[0, place]
        if isinstance(found, BadSample):
            bad.note(found)
    bad.check(len(places))
    if len(bad) == len(places) > 0:
        where, why = bad.listed[0]
        raise DataError(f"none of {len(places)} samples can be read; the first is {where}: {why}")


class Order(Sampler[list[Key]]):
    """Which samples make up each step's batch, from step `start` to `steps`, without any state."""

    def __init__(
        self,
        size: int,
        batch: int,
        seed: int,
        start: int,
        steps: int,
        shuffle: bool = True,
        part: tuple[int, int] = (0, 1),
        arranged: Callable[[int], Places | None] = lambda epoch: None,
    ):
        """`part`: which of how many equal parts of each batch. `arranged`: the order that a set has of its own."""
        super().__init__()
        rank, ranks = part
        if batch < ranks:
            raise ConfigError(
                f"train.batch: {batch} rows cannot be shared out over {ranks} processes: at least {ranks}"
            )
        self.low, self.high = rank * batch // ranks, (rank + 1) * batch // ranks
        self.size, self.batch, self.seed, self.start, self.steps = size, batch, seed, start, steps
        self.shuffle, self.arranged = shuffle, arranged

    def __len__(self) -> int:
        return max(self.steps - self.start, 0)

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(self.start, self.steps):
            yield self._keys(step * self.batch + self.low, self.high - self.low)

    def _keys(self, first: int, count: int) -> list[Key]:
        epoch, rest = divmod(first, self.size)
        if not self.shuffle or rest + count > self.size or self.arranged(epoch) is not None:
            return [self.key(place) for place in range(first, first + count)]
        return [(epoch, item) for item in _permutation(self.size, self.seed, epoch)[rest : rest + count].tolist()]

    def key(self, place: int) -> Key:
        epoch, rest = divmod(place, self.size)
        if not self.shuffle:
            return epoch, rest
        own = self.arranged(epoch)
        return epoch, (own[rest] if own is not None else int(_permutation(self.size, self.seed, epoch)[rest]))


@lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return torch.randperm(size, generator=torch_generator(seed, "order", epoch)).numpy()


def gather(found: Sequence[Item | BadSample]) -> Fetched:
    """What was found under some keys, as one batch."""
    good = [item for item in found if not isinstance(item, BadSample)]
    bad = [item for item in found if isinstance(item, BadSample)]
    return (collate(good) if good else None), bad, len(found)


def _leave_signals(worker: int) -> None:
    """A signal to the whole process group is for the trainer, which ends its loader processes itself: by SIGTERM, if one does
    not end when it is told. So the first one of it may be the group's, and the second is not."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _as_it_is(fetched: Any) -> Any:
    return fetched


def load(dataset: Samples, order: Sampler, workers: int) -> DataLoader:
    """A loader over (batch, bad samples, seen). It has a generator of its own, so the global one is left alone."""
    return DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_as_it_is,
        generator=torch.Generator(),
        worker_init_fn=_leave_signals,
        prefetch_factor=4 if workers else None,
    )
