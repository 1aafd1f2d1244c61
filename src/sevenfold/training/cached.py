"""Gradient caching: a loss that compares all rows of a batch, with the memory of a piece of it.

    1. e = embed(piece) of every piece, without gradient        2. L = compare(all e), c = dL/de
    3. each piece again, under the same seed:  gradient of <embed(piece), c>

Gao 2021 (GradCache), arXiv:2101.06983 section 3. Equal to the whole batch at once, dropout included, because a piece sees the
same random numbers both times. What it costs is one more forward pass. Statistics over a batch inside of what embeds cannot be
had from pieces: `check` refuses them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from sevenfold.core import ranks
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Batch, Loss
from sevenfold.objective import Objective


def check(objective: Objective, pieces: int, note: Callable[[str], None] = lambda _: None) -> None:
    """ConfigError where `train.accumulate` would change what a cached objective learns; `note` is told where it changes what
    another one that compares rows does."""
    if pieces == 1 or objective.decomposable:
        return
    if not objective.cached:
        note(
            f"train.accumulate: {objective.kind} compares the items within each of {pieces} pieces, not all of a batch"
        )
        return
    for name, module in objective.model.named_modules():
        if getattr(module, "across", False):
            raise ConfigError(
                f"train.accumulate: {objective.kind} compares whole batches, and the norm {name!r} would see {pieces} pieces of "
                "one apart: choose the norm layer, rms or group, or accumulate: 1"
            )


def through_pieces(
    objective: Objective,
    batch: Batch,
    drawn: Mapping[str, Tensor],
    pieces: Sequence[tuple[slice, int]],
    seed: int,
    context: Callable[[], AbstractContextManager[object]],
) -> Loss:
    """The loss of a batch, its gradients added to the parameters.

    pieces   rows, and the seed of what is random in them
    seed     of what is random in comparing
    context  in which objectives are called (autocast)
    """

    def embed(rows: slice, own: int) -> dict[str, Tensor] | None:
        torch.manual_seed(own)
        piece = {name: stream.rows(rows) for name, stream in batch.items()}
        with context():
            return objective.embed(piece, {name: choice[rows] for name, choice in drawn.items()})

    with torch.no_grad():
        seen = [(rows, own, found) for rows, own in pieces if (found := embed(rows, own)) is not None]
    whole = {name: torch.cat([found[name] for *_, found in seen]) for name in (seen[0][2] if seen else ())}
    for value in whole.values():
        value.requires_grad_(value.is_floating_point())
    every = ranks.data().all_gather_named(whole or None)
    if every is None:
        return objective.nothing()
    torch.manual_seed(seed)
    with context():
        loss = objective.compared(every).share(ranks.sequence().size)
    if not loss.total.requires_grad:
        return loss
    loss.total.backward()
    start, rows_in_all, left = 0, sum(len(value) for value in list(whole.values())[:1]), []
    objective.asked()
    for rows, own, before in seen:
        found = embed(rows, own)
        assert found is not None
        stop = start + len(next(iter(before.values())))
        ends = [(found[name], value.grad[start:stop]) for name, value in whole.items() if value.grad is not None]
        ends = [(value, gradient) for value, gradient in ends if value.requires_grad]
        extra = objective.asked()
        if extra is not None:
            left.append(extra * loss.count * ((stop - start) / rows_in_all))
            ends.append((left[-1], torch.ones_like(left[-1])))
        torch.autograd.backward([value for value, _ in ends], [gradient for _, gradient in ends])
        start = stop
    return loss if not left else loss.with_balance(torch.stack(left).sum())
