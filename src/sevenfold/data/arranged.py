"""The order of an epoch in which few parts of a set (files of it) are read at a time.

Parts come one after the other in a drawn order. The items of each are shuffled and cut into `group` slices; step t of the epoch is

    slice 0 of part t,  slice 1 of part t - 1,  …,  slice group - 1 of part t - group + 1        shuffled together

So a part is read during `group` steps, `group` parts are read at a time, each item comes once, and the item at any place is found
from (seed, epoch) without those before it. A shuffled buffer (WebDataset, tf.data) mixes as far, but its place cannot be found again
without reading what came before.

Where parts lie in files, several in each (row groups of parquet), the parts come in such an order themselves: its parts are the files, and
its items the parts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from sevenfold.core.seeds import numpy_generator
from sevenfold.data.numbers import as_array

AHEAD = 2
"""Parts that are fetched before they are needed."""


class Places(Protocol):
    """Place of an epoch → item."""

    def __getitem__(self, place: int, /) -> int: ...


class Shelves(NamedTuple):
    """Samples that lie in parts of which few should be read at a time.

    bounds  [parts + 1]: a part holds the samples bounds[i] … bounds[i + 1]
    group   how many parts are mixed
    ahead   is told the numbers of the parts that will be read next
    numbers  the numbers of the parts, where they are not those from 0
    groups   [parts] where parts of several sources stand here: how many of its own source's are mixed, by part
    files    the files that parts lie in, several in each, where few of these should be read at a time: bounds are numbers of parts
    """

    bounds: np.ndarray
    group: int
    ahead: Callable[[Sequence[int]], None]
    numbers: np.ndarray | None = None
    groups: np.ndarray | None = None
    files: Shelves | None = None

    def of(self, samples: Sequence[int] | np.ndarray) -> Shelves:
        """The parts of some samples, in order: bounds are places among them, and parts that hold none are left out."""
        bounds = np.searchsorted(as_array(samples), self.bounds)
        holding = np.flatnonzero(np.diff(bounds))
        numbers = holding if self.numbers is None else self.numbers[holding]
        files = None if self.files is None else self.files.of(holding)
        found = self._replace(bounds=np.append(bounds[holding], len(samples)), numbers=numbers, files=files)
        if self.groups is None or not len(holding):
            return found
        groups = self.groups[holding]
        return found._replace(group=int(groups.min()), groups=groups)

    def coming(self, parts: Sequence[int]) -> None:
        """These parts will be read next."""
        self.ahead(list(parts) if self.numbers is None else self.numbers[list(parts)].tolist())


def nobody(parts: Sequence[int]) -> None:
    """Who needs not be told."""


def together(each: Sequence[Shelves]) -> Shelves:
    """The shelves of several sets, one behind the other."""
    counts = [len(one.bounds) - 1 for one in each]
    firsts = np.cumsum([0, *(one.bounds[-1] for one in each)])
    bounds = np.concatenate([[0], *(first + one.bounds[1:] for first, one in zip(firsts, each))])
    groups = np.concatenate(
        [np.full(count, one.group) if one.groups is None else one.groups for one, count in zip(each, counts)]
    )
    files = None
    if any(one.files is not None for one in each):
        files = together([one.files or Shelves(np.arange(n + 1), one.group, one.ahead) for one, n in zip(each, counts)])
    ahead = partial(_told, [one.ahead for one in each], np.cumsum([0, *counts]).tolist())
    return Shelves(bounds, int(groups.min()), ahead, groups=groups, files=files)


def _told(each: Sequence[Callable[[Sequence[int]], None]], firsts: Sequence[int], parts: Sequence[int]) -> None:
    for ahead, first, stop in zip(each, firsts, firsts[1:]):
        own = [part - first for part in parts if first <= part < stop]
        if own:
            ahead(own)


class Moving:
    """Place of an epoch → item."""

    def __init__(self, bounds: np.ndarray, group: int, *seed: int | str, files: Moving | None = None):
        """`files`: the order in which parts come, of which there are several in a file; by default a drawn one."""
        self.bounds, self.seed = bounds, seed
        parts = len(bounds) - 1
        self.group = max(1, min(group, parts))
        self.parts = numpy_generator(*seed, "parts").permutation(parts) if files is None else files.whole()
        """The parts, as they come."""
        self.turns = np.argsort(self.parts)
        """When each part comes."""
        sizes = np.diff(bounds)[self.parts]
        steps = np.zeros(parts + self.group - 1, np.int64)
        for place in range(self.group):
            steps[place : place + parts] += self._cut(sizes, place + 1) - self._cut(sizes, place)
        self.ends = np.cumsum(steps)
        self._made: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    def _cut(self, sizes, place: int):
        return sizes * place // self.group

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, place: int) -> int:
        step = int(np.searchsorted(self.ends, place, side="right"))
        items = self._once(("step", step), self._step)
        return int(items[place - (int(self.ends[step - 1]) if step else 0)])

    def whole(self) -> np.ndarray:
        """The items of all places."""
        return np.concatenate([self._step(step) for step in range(len(self.ends))])

    def _once(self, key: tuple[str, int], make: Callable[[int], np.ndarray]) -> np.ndarray:
        """What was made lately is kept: the parts of a step and a step or two."""
        if key not in self._made:
            self._made[key] = make(key[1])
            while len(self._made) > self.group + 3:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return self._made[key]

    def _step(self, step: int) -> np.ndarray:
        slices = []
        for place in range(self.group):
            if 0 <= step - place < len(self.parts):
                items = self._once(("part", int(self.parts[step - place])), self._part)
                slices.append(items[self._cut(len(items), place) : self._cut(len(items), place + 1)])
        return numpy_generator(*self.seed, "step", step).permutation(np.concatenate(slices))

    def _part(self, part: int) -> np.ndarray:
        start, stop = self.bounds[part], self.bounds[part + 1]
        return int(start) + numpy_generator(*self.seed, "part", part).permutation(int(stop - start))


class Arranged:
    """The orders of all epochs; whoever reads tells where it is, and what comes next is fetched meanwhile."""

    def __init__(self, shelves: Shelves, seed: int, name: str = "order"):
        self.shelves, self.seed, self.name = shelves, seed, name
        self.files = None if shelves.files is None else Arranged(shelves.files, seed, "files")
        self._epochs: dict[int, Moving] = {}
        self._told: tuple[int, int] | None = None

    def epoch(self, epoch: int) -> Moving:
        if epoch not in self._epochs:
            kept = list(self._epochs.items())[-1:]  # a batch may hold the end of one epoch and the next
            files = None if self.files is None else self.files.epoch(epoch)
            made = Moving(self.shelves.bounds, self.shelves.group, self.seed, self.name, epoch, files=files)
            self._epochs = {**dict(kept), epoch: made}
        return self._epochs[epoch]

    def part_of(self, item: int) -> int:
        return int(np.searchsorted(self.shelves.bounds, item, side="right")) - 1

    def reading(self, read: Sequence[tuple[int, int]], drawn: bool) -> None:
        """(epoch, part) of what is read now, in this order or (held out) in that of the samples: the parts that come next are told."""
        if self.files is not None:
            self.files.reading([(epoch, self.files.part_of(part)) for epoch, part in set(read)], drawn)
            return
        if not drawn:
            last = max(part for _, part in read)
            if self._told != (-1, last):
                self._told = -1, last
                self.shelves.coming(range(last + 1, min(last + 1 + AHEAD, len(self.shelves.bounds) - 1)))
            return
        epoch, turn = max((epoch, int(self.epoch(epoch).turns[part])) for epoch, part in set(read))
        if self._told == (epoch, turn):
            return
        self._told = epoch, turn
        moving = self.epoch(epoch)
        coming = moving.parts[turn + 1 : turn + 1 + AHEAD].tolist()
        if len(coming) < AHEAD:
            coming += self.epoch(epoch + 1).parts[: AHEAD - len(coming)].tolist()
        self.shelves.coming(coming)
