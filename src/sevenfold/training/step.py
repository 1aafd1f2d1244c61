"""One optimizer step, over a batch in pieces, among any number of processes.

gradient = sum over pieces and processes of d total  /  sum of their counts
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sevenfold.assembly.adapter import need_gradients
from sevenfold.core import ranks
from sevenfold.core.ranks import own
from sevenfold.core.seeds import begin, seed_of
from sevenfold.core.types import Batch, Loss
from sevenfold.objective import Objective
from sevenfold.training.cached import through_pieces
from sevenfold.training.guard import finite
from sevenfold.training.parallel.gradients import Gradients
from sevenfold.training.parallel.rows import drawn_of
from sevenfold.training.precision import autocast
from sevenfold.training.recipe import TrainConfig


def take_step(
    objective: Objective,
    optimizer: Any,
    batch: Batch,
    config: TrainConfig,
    precision: Any,
    seed: int,
    step: int,
    factor: float,
    accepts: Callable[[float, float], bool] = finite,
    gradients: Gradients | None = None,
) -> tuple[Loss, float, bool]:
    """One optimizer step over a batch in `accumulate` pieces → (loss over all, gradient norm, whether it was taken). It is
    only taken if `accepts` says so of the mean loss and the gradient norm.

    Among several processes, `gradients` adds them up; the loss is that of this process's rows, and the rest is of all.
    """
    gradients = Gradients() if gradients is None else gradients
    statistics = _statistics(objective)
    loss = _backward(objective, batch, config, precision, seed, step, gradients)
    total, count = gradients.finish(loss.total, loss.count)
    parameters = [p for group in optimizer.parts for g in group.param_groups for p in g["params"] if p.grad is not None]
    if parameters:
        torch._foreach_div_([own(p.grad) for p in parameters], count.clamp(min=1))
    asked = torch.stack([part.double() for part in (total, count, gradients.clip(parameters, config.clip))])
    loss_sum, targets, norm = asked.tolist()  # all that a device is waited for: may the step be taken?
    if not step and targets:
        need_gradients(objective.model, f"{objective.kind} in the first step")
    taken = ranks.mesh().every.all(accepts(loss_sum / max(targets, 1.0), norm))
    if taken:
        optimizer.step(factor)
    else:
        for buffer, value in statistics:
            buffer.copy_(value)
    optimizer.zero_grad()
    return loss, norm, taken


def _statistics(objective: Objective) -> list[tuple[Tensor, Tensor]]:
    """(buffer, a copy of it) of what a forward pass moves (statistics of batch norms): a step that is not taken leaves no trace."""
    return [
        (buffer, buffer.clone())
        for module in objective.modules()
        if getattr(type(module), "across", False)
        for buffer in module.buffers(recurse=False)
    ]


def _backward(
    objective: Objective, batch: Batch, config: TrainConfig, precision: Any, seed: int, step: int, gradients: Gradients
) -> Loss:
    """Forward and backward passes over a batch, piece by piece: its loss, detached; its gradients are left in the parameters."""
    device = next(iter(batch.values())).values.device
    begin(seed_of(seed, "draw", step), device)
    batch, drawn, before = drawn_of(objective, batch)
    rows = len(next(iter(batch.values())).values)
    count = pieces_of(rows, config.accumulate)
    ends = [place * rows // count for place in range(count + 1)]
    pieces = [(slice(low, high), seed_of(seed, "step", step, before + low)) for low, high in zip(ends, ends[1:])]
    if objective.cached and count > 1:
        context, random = partial(autocast, precision, device), seed_of(seed, "compare", step)
        return detached(through_pieces(objective, batch, drawn, pieces, random, context))
    losses = []
    for place, (piece, random) in enumerate(pieces):
        if place == count - 1:
            gradients.last()
        begin(random, device)
        with autocast(precision, device):
            loss = objective(
                {name: stream.rows(piece) for name, stream in batch.items()},
                {name: choice[piece] for name, choice in drawn.items()},
            )
        if loss.total.requires_grad:
            loss.total.backward()
        losses.append(detached(loss))
    return summed(losses)


def pieces_of(rows: int, asked: int) -> int:
    """In how many pieces the rows are taken: as many as other processes take."""
    others = ranks.data()
    if others.alone or asked == 1:
        return min(asked, rows)
    return min(asked, min(count for (count,) in others.gather_ints([rows])))


def detached(loss: Loss) -> Loss:
    """The loss without what its gradient needs, and without outputs."""
    return Loss(loss.total.detach(), loss.count.detach(), {k: (a.detach(), n) for k, (a, n) in loss.terms.items()}, {})


def summed(losses: list[Loss]) -> Loss:
    """The loss over all, of losses that are detached."""
    terms: dict[str, tuple[Tensor, Tensor]] = {}
    for loss in losses:
        for name, (a, n) in loss.terms.items():
            before = terms.get(name)
            terms[name] = (a, n) if before is None else (before[0] + a, before[1] + n)
    return Loss(torch.stack([x.total for x in losses]).sum(), torch.stack([x.count for x in losses]).sum(), terms, {})
