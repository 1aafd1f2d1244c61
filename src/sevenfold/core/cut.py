"""How a part is cut for several processes: each has some of its heads or channels, and what they give is added up.

    part(x) = sum_r part_r(x)         part_r: of what reads x the rows of rank r's heads, of what joins them these columns

Shoeybi 2019 (Megatron), arXiv:1909.08053 section 3. Where one matrix makes several things (queries, keys and values; gate and
value) each of these is cut by itself, so that a process has whole heads, and gates beside their values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Seams(NamedTuple):
    """Where a part can be cut."""

    units: int
    """How many equal things it is made of: a number of processes must divide it."""
    unit: str
    """What these are, in a word."""
    opens: dict[str, tuple[int, ...]]
    """A projection that reads what goes in → the sizes of what it makes, end to end; each is cut."""
    closes: dict[str, tuple[int, ...]]
    """A projection that joins what is cut → the sizes of what it reads; what the parts of it give is added up."""


class Cut(NamedTuple):
    """How a process has a tensor: along `axis`, 1/among of each of the things that it makes."""

    axis: int
    sizes: tuple[int, ...]
    """What this process has of each, end to end."""
    among: int
    rank: int

    def pieces(self, rank: int) -> list[tuple[int, int, int]]:
        """(where it begins in what a rank has, where in the whole, how long it is) of each."""
        found, begin = [], 0
        for size in self.sizes:
            found.append((begin, begin * self.among + rank * size, size))
            begin += size
        return found

    def of(self, whole: Tensor) -> Tensor:
        """What this process has of a whole tensor."""
        places = self.pieces(self.rank)
        return torch.cat([whole.narrow(self.axis, begin, size) for _, begin, size in places], self.axis)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The whole, of what each rank has."""
        each = [part.split(self.sizes, self.axis) for part in parts]
        return torch.cat([piece for same in zip(*each) for piece in same], self.axis)

    def whole(self, shape: Sequence[int]) -> torch.Size:
        """The shape of the whole, of that of a part."""
        return torch.Size(size * (self.among if axis == self.axis else 1) for axis, size in enumerate(shape))


class Share(NamedTuple):
    """How processes can share a part, and what of one row of the batch they then send each other."""

    units: int = 0
    """Among how many at most; 1 with an adapter beside it."""
    parameters: int = 0
    """Those that are cut."""
    gives: int = 0
    """Numbers that it gives, and as many that it reads."""
    memory: int = 0
    """Numbers of a memory that it reads, where these have a gradient."""
    bias: int = 0
    """Numbers that a position which learns adds to scores; in float32."""
    whole: int = 0
    """Of the numbers that it keeps, those that each keeps for all heads."""


def axes_of(part: Any) -> Iterator[tuple[Any, str, int, tuple[int, ...]]]:
    """(projection, name of a parameter of it, the axis along which it is cut, the sizes there) of a part that has seams."""
    seams: Seams = part.seams()
    for side, places in enumerate((seams.opens, seams.closes)):
        for place, sizes in places.items():
            projection = getattr(part, place)
            for key, axes in projection.sides.items():
                if axes[side] is not None and getattr(projection, key) is not None:
                    yield projection, key, axes[side], sizes


def uncut(part: Any) -> Iterator[tuple[str, str]]:
    """(projection, a parameter of it) where it does not say how that is cut: an adapter beside it."""
    seams: Seams = part.seams()
    for place in (*seams.opens, *seams.closes):
        projection = getattr(part, place)
        if unknown := dict(projection.named_parameters()).keys() - projection.sides.keys():
            yield place, min(unknown)


def cut_of(part: Any) -> dict[str, Tensor]:
    """The parameters of a part with seams that are cut, by name."""
    those = {id(getattr(projection, key)) for projection, key, _, _ in axes_of(part)}
    return {name: parameter for name, parameter in part.named_parameters() if id(parameter) in those}


def sharing(part: Any, tokens: int, memory: int = 0, bias: int = 0, whole: int = 0) -> Share:
    """How a part can be shared, over so many tokens."""
    seams = part.seams()
    if seams is None:
        return Share()
    if any(uncut(part)):
        return Share(1)
    cut = sum(p.numel() for p in cut_of(part).values())
    return Share(seams.units, cut, tokens * part.width, memory, bias, whole)
