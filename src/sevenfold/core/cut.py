"""Tensor parallelism: how a part is cut into slices, one for each process, whose outputs are summed.

    part(x) = sum_r slice_r(x)         slice_r: the projections that read x give rank r's heads only, those that join heads read these only

Shoeybi 2019 (Megatron), arXiv:1909.08053 section 3. Where one matrix makes several things (queries, keys and values; gate and
value) each of these is cut by itself, so that a process has whole heads, and gates beside their values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Seams(NamedTuple):
    """Where a part can be cut. The names of the two sides are PyTorch's (ColwiseParallel, RowwiseParallel)."""

    units: int
    """How many equal things it is made of: a number of processes must divide it."""
    unit: str
    """What these are, in a word."""
    columnwise: dict[str, tuple[int, ...]]
    """Projections cut along their outputs, those that read what goes in → the sizes of what each makes, end to end; each is cut."""
    rowwise: dict[str, tuple[int, ...]]
    """Projections cut along their inputs, those that join what is cut → the sizes of what each reads; their outputs are summed."""


class Cuttable:
    """A part of a block that several processes can share: each has a slice of its heads or channels. By default it cannot be cut."""

    slices: int = 1
    """Into how many slices it is cut, of which this is one."""

    def seams(self) -> Seams | None:
        """Where it can be cut; None: nowhere, and every process has all of it. A mixer that can be cut reads of a Hidden only x, a
        memory's x, angles and bias, and keeps nothing from one pass to the next."""
        return None

    def keep_slice(self, slices: int) -> None:
        """Only 1/slices of its heads or channels are here from now on; its parameters are cut already."""
        raise NotImplementedError


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
    for side, places in enumerate((seams.columnwise, seams.rowwise)):
        for place, sizes in places.items():
            projection = getattr(part, place)
            for key, axes in projection.sides.items():
                if axes[side] is not None and getattr(projection, key) is not None:
                    yield projection, key, axes[side], sizes


def uncut(part: Any) -> Iterator[tuple[str, str]]:
    """(projection, a parameter of it) where it does not say how that is cut: an adapter beside it."""
    seams: Seams = part.seams()
    for place in (*seams.columnwise, *seams.rowwise):
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
