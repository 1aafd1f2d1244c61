"""A part that is cut into several, in one process, beside the whole."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from sevenfold.conformance._kit import Skipped, near
from sevenfold.core.ranks import Ranks
from sevenfold.training.parallel.tensor import cut_part, enter


def same_cut(whole: Any, given: tuple[Any, ...]) -> None:
    """A part (float64, in training as in evaluation) gives what its parts give together, and their gradients are its own.
    Skipped where it cannot be cut."""
    seams = whole.train().seams()
    if seams is None:
        raise Skipped("it is not cut: every process has all of it")
    among = next((count for count in range(2, seams.units + 1) if seams.units % count == 0), None)
    if among is None:
        raise Skipped(f"it has one of its {seams.unit} only")
    parts = [copy.deepcopy(whole) for _ in range(among)]
    cuts = [cut_part(part, Ranks(rank, among)) for rank, part in enumerate(parts)]
    wanted = whole(*given)
    found = sum(part(*enter(Ranks(rank, among), part, given)) for rank, part in enumerate(parts))
    near(found, wanted, f"the sum of {among} parts")
    towards = torch.randn_like(wanted)
    pieces = [gradients(part, found, towards) for part in parts]
    for name, gradient in gradients(whole, wanted, towards).items():
        every = [piece[name] for piece in pieces]
        joined = cuts[0][name].joined(every) if name in cuts[0] else torch.stack(every).sum(0)
        near(joined, gradient, f"the gradient of {name}")


def gradients(part: Any, given: Tensor, towards: Tensor) -> dict[str, Tensor]:
    """Of its parameters, by name."""
    named = dict(part.named_parameters())
    return dict(zip(named, torch.autograd.grad(given, list(named.values()), towards, retain_graph=True)))
