"""Tensor parallelism: each process of a group computes with its slice of the weights of every mixer and nonlinearity of a block.

    forward    y = sum_r slice_r(x)                one all-reduce for each part of a block
    backward   dx = sum_r of what each has for x   and one more

Shoeybi 2019 (Megatron), arXiv:1909.08053 section 3. A part says itself where it can be cut (`seams`); one that says nothing, and
what is in no block, every process has whole. All of a group have the same rows and draw the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sevenfold.assembly.block import Block
from sevenfold.core import ranks
from sevenfold.core.cut import Cut, Seams, axes_of, uncut
from sevenfold.core.errors import ConfigError
from sevenfold.core.ranks import Ranks
from sevenfold.core.types import Hidden


class Placement(NamedTuple):
    """Which parameters of a module are not simply replicated among the processes that share heads, by name."""

    cut: dict[str, Cut]
    """Of these each process has a slice."""
    partial: frozenset[str]
    """These are whole on each, but their gradient is only what its own heads give: the sum over processes is the gradient."""


def cut(objective: nn.Module, others: Ranks) -> None:
    """Give this process its slice of every block of an objective, in place; ConfigError, before any is changed, as `to_cut`."""
    for part in to_cut(objective, others.size):
        cut_part(part, others)
        part.register_forward_pre_hook(partial(enter, others))
        part.register_forward_hook(partial(_leave, others))


def to_cut(objective: nn.Module, among: int) -> list[Any]:
    """The parts of an objective that so many processes share.

    ConfigError where heads or channels cannot be shared out by so many, and where nothing can be cut.
    """
    found: dict[int, Any] = {}
    for name, part in _parts(objective):
        seams: Seams | None = part.seams()
        if id(part) in found or seams is None:
            continue
        if seams.units % among:
            mend = "set parallel.tensor=1" if seams.units == 1 else f"choose a number that divides {seams.units}"
            raise ConfigError(
                f"parallel.tensor: {among} processes cannot share the {seams.units} {seams.unit} of {name!r}: {mend}"
            )
        _adapted(part, name)
        found[id(part)] = part
    if not found:
        raise ConfigError(
            "parallel.tensor: no block of this model has a part that can be cut (attention, cross-attention and feed-forward "
            "parts can): set parallel.tensor to 1"
        )
    return [*found.values()]


def cut_part(part: Any, others: Ranks) -> dict[str, Cut]:
    """Keep this process's slice of a mixer or nonlinearity, in place; its parameters that are cut, by name."""
    part.keep_slice(others.size)
    part.slices = others.size
    for place in part.seams().rowwise:
        getattr(part, place).added = others.size
    for projection, key, piece in _cuts(part, others.rank):
        own = getattr(projection, key)
        setattr(projection, key, nn.Parameter(piece.of(own.detach()).clone(), requires_grad=own.requires_grad))
    return _named(part, others.rank)


def placement(module: nn.Module) -> Placement:
    """How the parameters of a module are placed."""
    found: dict[str, Cut] = {}
    whole: set[str] = set()
    for name, part in _parts(module):
        if part.slices == 1:
            continue
        cut = _named(part, ranks.tensor().rank)
        found |= {f"{name}.{key}": piece for key, piece in cut.items()}
        whole |= {f"{name}.{key}" for key, _ in part.named_parameters() if key not in cut}
    return Placement(found, frozenset(whole))


def _parts(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name → every mixer and nonlinearity of every block."""
    for name, block in module.named_modules(remove_duplicate=False):
        if isinstance(block, Block):
            for key, part in (("mixer", block.mixer), ("cross", block.cross), ("feed", block.feed)):
                if part is not None:
                    yield f"{name}.{key}" if name else key, part


def _cuts(part: Any, rank: int) -> list[tuple[Any, str, Cut]]:
    """(projection, name of a parameter, how it is cut) of a part that has its share of the heads."""
    return [(where, key, Cut(axis, sizes, part.slices, rank)) for where, key, axis, sizes in axes_of(part)]


def _named(part: Any, rank: int) -> dict[str, Cut]:
    names = {id(parameter): name for name, parameter in part.named_parameters()}
    return {names[id(getattr(projection, key))]: piece for projection, key, piece in _cuts(part, rank)}


def _adapted(part: Any, name: str) -> None:
    """ConfigError for a projection that cannot be cut."""
    for place, unknown in uncut(part):
        what = f"has {unknown!r} beside it (an adapter)" if "." in unknown else "cannot be cut"
        raise ConfigError(
            f"parallel.tensor: {name}.{place} ({getattr(part, place).kind}) {what}: set parallel.tensor to 1, or use "
            "parallel.shard"
        )


def enter(others: Ranks, part: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """What goes into a part, for its heads."""
    first, *rest = given
    if not isinstance(first, Hidden):
        return (_shared(others, first), *rest)
    memory, bias = first.memory, first.bias
    if memory is not None:
        memory = memory._replace(x=_shared(others, memory.x))
    if bias is not None:
        bias = partial(_own_heads, others, bias)
    return (first._replace(x=_shared(others, first.x), memory=memory, bias=bias), *rest)


def _shared(others: Ranks, x: Tensor) -> Tensor:
    """What a projection reads, as it reads it: what is sent for it in the backward pass is no wider than products are."""
    kind = x.device.type
    return others.reduce_backward(x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x)


def _own_heads(others: Ranks, bias: Any, query: Tensor, key: Tensor, heads: int) -> Tensor:
    """What a position adds to the scores of this process's heads."""
    return others.reduce_backward(bias(query, key, heads * others.size)).narrow(1, others.rank * heads, heads)


def _leave(others: Ranks, part: nn.Module, given: Any, output: Tensor) -> Tensor:
    """What a part gives, with that of all others."""
    return others.reduce_forward(output)
