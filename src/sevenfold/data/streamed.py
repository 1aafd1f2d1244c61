"""A line that is too long to be read in any order: each of its files is laid out by itself, and a few of them are read at a time.

Which are read when is in sevenfold.data.arranged. A window or a row is of one file: the tokens of a file that fill no window are left
out of an epoch, others in each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from sevenfold.core.errors import BadSample
from sevenfold.data.arranged import Arranged, Moving, Shelves
from sevenfold.data.line import Line
from sevenfold.data.loader import Fetched, Item, Key, Samples
from sevenfold.data.mixed import from_each


class Streamed(Samples):
    """The windows or rows of each file, one file after the other."""

    def __init__(
        self,
        line: Line,
        group: int,
        least: int,
        seed: int,
        views: bool,
        lay: Callable[[Line], Samples],
        count: Callable[[Line], int],
    ):
        """`group`: how many files are mixed; `least`: files with fewer tokens are laid out with their neighbour; `lay`: lays one out;
        `count`: how many items that makes; `views`: whether other files come in each epoch (training)."""
        self.line, self.group, self.views, self.lay = line, group, views, lay
        self.firsts = _parts(line, least)
        counts = [count(self._line(part)) for part in range(len(self.firsts) - 1)]
        self.ends = np.cumsum([0, *counts])
        self.order = Arranged(Shelves(self.ends, group, self._ahead), seed)
        self._laid: OrderedDict[int, Samples] = OrderedDict()

    def __len__(self) -> int:
        return int(self.ends[-1])

    def arranged(self, epoch: int) -> Moving | None:
        return self.order.epoch(epoch)

    def _line(self, part: int) -> Line:
        return self.line.part(self.firsts[part], self.firsts[part + 1])

    def _ahead(self, parts: Sequence[int]) -> None:
        self.line.ahead([number for part in parts for number in range(self.firsts[part], self.firsts[part + 1])])

    def _of(self, part: int) -> Samples:
        if part not in self._laid:
            self._laid[part] = self.lay(self._line(part))
            while len(self._laid) > self.group + 1:
                self._laid.popitem(last=False)
        self._laid.move_to_end(part)
        return self._laid[part]

    def _place(self, key: Key) -> tuple[int, Key]:
        part = self.order.part_of(key[1])
        return part, (key[0], key[1] - int(self.ends[part]))

    def __getitem__(self, key: Key) -> Item | BadSample:
        part, own = self._place(key)
        return self._of(part)[own]

    def batch(self, keys: Sequence[Key]) -> Fetched:
        places = [self._place(key) for key in keys]
        self.order.reading([(key[0], part) for part, key in places], self.views)
        return from_each(places, self._of)


def _parts(line: Line, least: int) -> list[int]:
    """The first file of each part, and how many files there are: files of fewer than `least` tokens are joined."""
    firsts, held = [0], 0
    for number, size in enumerate(line.sizes.tolist(), 1):
        held += size
        if held >= least:
            firsts.append(number)
            held = 0
    if held and len(firsts) > 1:
        firsts.pop()
    return firsts if firsts[-1] == len(line.sizes) else [*firsts, len(line.sizes)]
