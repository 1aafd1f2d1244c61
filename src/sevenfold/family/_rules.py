"""Rules of a family: which tensors of ours are made of which published ones, and how, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

LUGGAGE, OBJECTIVE = "luggage.", "objective."
"""What the names of tensors begin with that a model only carries along, and that an objective holds."""


class Op(NamedTuple):
    """What happens to tensors between the two layouts."""

    take: Callable[[list[Tensor]], list[Tensor]]
    """Theirs → ours."""
    give: Callable[[list[Any]], list[Tensor]]
    """Ours → theirs, undoing `take`. Luggage that a model does not have (it began here) comes as None."""
    spared: bool = False
    """Whether what an objective would hold may be absent as well, and comes as None."""


class Rule(NamedTuple):
    """Tensors of ours, the published tensors that they are made of, and how."""

    ours: str | tuple[str, ...]
    theirs: str | tuple[str, ...]
    op: Op = Op(lambda theirs: theirs, lambda ours: ours)

    def at(self, index: int) -> Rule:
        """The rule of one block: {i} in names becomes its index."""
        ours, theirs = ([name.replace("{i}", str(index)) for name in names] for names in self.names)
        return Rule(tuple(ours), tuple(theirs), self.op)

    @property
    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(ours, theirs)."""
        ours, theirs = (names if isinstance(names, tuple) else (names,) for names in self[:2])
        return ours, theirs


# Operations
SAME = Rule("", "").op
TRANSPOSE = Op(lambda theirs: [theirs[0].T], lambda ours: [ours[0].T])
"""A matrix kept as [in out] (GPT-2)."""


def stacked(parts: int) -> Op:
    """Tensors kept apart, of equal heights, one above the other in ours."""
    return Op(lambda theirs: [torch.cat(theirs)], lambda ours: list(ours[0].chunk(parts)))


STACK = stacked(3)
"""Query, key and value of equal widths, kept apart."""


def stack(*sizes: int) -> Op:
    """Layers of these many outputs, one below the other in ours, kept apart."""
    return Op(lambda theirs: [torch.cat(theirs)], lambda ours: list(ours[0].split(sizes)))


def lead(count: int) -> Op:
    """Theirs has `count` more leading axes of length 1 than ours (fewer, if negative)."""

    def more(tensor: Tensor, n: int) -> Tensor:
        if n < 0 and tensor.shape[:-n] != (1,) * -n:
            raise ValueError(f"shape {list(tensor.shape)} does not begin with {-n} axes of length 1")
        return tensor.reshape((1,) * n + tensor.shape if n > 0 else tensor.shape[-n:])

    return Op(lambda theirs: [more(theirs[0], -count)], lambda ours: [more(ours[0], count)])


def patches(size: int, channels: int) -> Op:
    """The weight of a convolution over patches, [d C P P], as ours on flattened patches, [d P*P*C]."""
    return Op(
        lambda theirs: [theirs[0].movedim(1, -1).reshape(-1, size * size * channels)],
        lambda ours: [ours[0].reshape(-1, size, size, channels).movedim(-1, 1)],
    )


def begun(op: Op, value: float) -> Op:
    """The same for one number that an objective holds; a model that learned by another objective is published with that
    value."""
    return Op(op.take, lambda ours: op.give([torch.tensor(value) if ours[0] is None else ours[0]]), True)


def constant(value: Callable[[], Tensor], tolerance: float = 1e-5) -> Op:
    """A published tensor that holds fixed numbers, which we compute: checked on the way in, written on the way out."""

    def take(theirs: list[Tensor]) -> list[Tensor]:
        wanted = value()
        if theirs[0].shape != wanted.shape or not torch.allclose(theirs[0].float(), wanted, rtol=0, atol=tolerance):
            raise ValueError("holds other numbers than the fixed ones that this family has there")
        return []

    return Op(take, lambda ours: [value()])


def first_rows(count: int, total: int) -> Op:
    """A table of `total` rows as its first `count` rows, each by itself, and the others, which may be luggage: of a model
    that began here they are as the last that there is."""

    def give(ours: list[Any]) -> list[Tensor]:
        first, rest = torch.stack(ours[:-1]), ours[-1]
        return [torch.cat([first, first[-1:].expand(total - count, -1) if rest is None else rest])]

    return Op(lambda theirs: [*theirs[0][:count], theirs[0][count:]], give)


# Groups of rules
def unread(name: str, *shape: int) -> Rule:
    """A published tensor that must be there, and that the model has no use for: luggage; 0 of a model that began here."""
    op = Op(lambda theirs: theirs, lambda ours: [torch.zeros(shape) if ours[0] is None else ours[0]])
    return Rule(f"{LUGGAGE}{name}", name, op)


def affine(ours: str, theirs: str | tuple[str, ...], weight: Op = SAME, bias: Op | None = SAME) -> list[Rule]:
    """Weight and (unless None) bias of one layer."""
    names = theirs if isinstance(theirs, tuple) else (theirs,)
    rules = [Rule(f"{ours}.weight", tuple(f"{name}.weight" for name in names), weight)]
    if bias is not None:
        rules.append(Rule(f"{ours}.bias", tuple(f"{name}.bias" for name in names), bias))
    return rules


def blocks(trunk: str, depth: int, theirs: str, layers: Mapping[str, str | tuple[str, ...]]) -> list[Rule]:
    """Rules of `depth` blocks: layers of ours (under `trunks.TRUNK.blocks.{i}`) → theirs (under `theirs`, with {i}).
    Several names are stacked."""
    once: list[Rule] = []
    for ours, names in layers.items():
        place = f"trunks.{trunk}.blocks.{{i}}.{ours}"
        if isinstance(names, tuple):
            once += affine(place, tuple(f"{theirs}.{name}" for name in names), STACK, STACK)
        else:
            once += affine(place, f"{theirs}.{names}")
    return repeat(depth, once)


def repeat(depth: int, rules: Sequence[Rule]) -> list[Rule]:
    """The rules of one block for each of `depth` blocks."""
    return [rule.at(index) for index in range(depth) for rule in rules]
