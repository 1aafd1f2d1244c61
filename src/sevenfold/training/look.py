"""The loss on held-out items, in evaluation: processes take turns with the batches."""

from __future__ import annotations

import math

import torch

from sevenfold.assembly.model import to_device
from sevenfold.core import ranks
from sevenfold.core.seeds import seed_of
from sevenfold.core.types import Loss
from sevenfold.data.bad import BadSamples
from sevenfold.data.loader import Samples
from sevenfold.objective import Objective
from sevenfold.training.compiled import bucketed
from sevenfold.training.parallel.rows import gather_bad, in_company, means_of, over_ranks, same_in_group, sums
from sevenfold.training.precision import autocast, resolve
from sevenfold.training.recipe import TrainConfig
from sevenfold.training.step import detached, summed


def means(losses: list[Loss]) -> dict[str, float]:
    """The loss of some batches and its terms; those without any target (count 0) are left out."""
    return means_of(sums(summed(losses) if losses else None))


def evaluate(
    objective: Objective,
    data: Samples,
    config: TrainConfig,
    seed: int = 0,
    batches: int | None = None,
    bad: BadSamples | None = None,
) -> dict[str, float]:
    """The loss and its terms over held-out items in their order: at most `batches` of them, or all; processes take turns.

    `bad` is told of those that cannot be read.
    """
    losses = held_out_losses(objective, data, config, seed, batches, bad)
    return over_ranks(summed(losses) if losses else None, 0, 0)[0]


@torch.no_grad()
def held_out_losses(
    objective: Objective,
    data: Samples,
    config: TrainConfig,
    seed: int = 0,
    batches: int | None = None,
    bad: BadSamples | None = None,
) -> list[Loss]:
    """The loss of each batch of held-out items that this process took, as in `evaluate`; none of a batch of which nothing can be read.

    All processes make equally many forward passes, since weights in shards are gathered by all together: a process that has no batch
    of its own repeats the last one, or takes a row of another process, and its loss is not counted.
    """
    device = next(objective.parameters()).device
    precision = resolve(config.precision, device)
    others, size = ranks.data(), len(data)
    batch_size = min(config.batch or 32, size)
    steps = math.ceil(size / batch_size)
    steps = steps if batches is None else min(steps, batches)
    was, losses = objective.training, []
    objective.eval()
    try:
        for place in range(others.rank, -(-steps // others.size) * others.size, others.size):
            counts, place = place < steps, min(place, steps - 1)
            keys = [(0, index) for index in range(place * batch_size, min((place + 1) * batch_size, size))]
            batch, broken, _ = data.batch(keys)
            if unread := gather_bad(broken):
                batch = same_in_group(batch, broken)
                counts = counts and batch is not None
                batch = in_company(batch)
                for error in unread:
                    if bad is not None:
                        bad.note(error)
            if batch is None:
                continue
            batch = bucketed(objective.model, batch) if config.compile else batch
            torch.manual_seed(seed_of(seed, "look", place))
            with autocast(precision, device), ranks.whole_batch():
                loss = detached(objective(to_device(batch, device)))
            losses += [loss] if counts else []
    finally:
        objective.train(was)
    return losses
