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
from sevenfold.training.parallel.rows import alike, of_all, of_sums, others_bad, sums
from sevenfold.training.precision import autocast, resolve
from sevenfold.training.recipe import TrainConfig
from sevenfold.training.step import detached, summed


def means(losses: list[Loss]) -> dict[str, float]:
    """The loss of some batches and its terms; those without any target (count 0) are left out."""
    return of_sums(sums(summed(losses) if losses else None))


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
    losses = looked(objective, data, config, seed, batches, bad)
    return of_all(summed(losses) if losses else None, 0, 0)[0]


@torch.no_grad()
def looked(
    objective: Objective,
    data: Samples,
    config: TrainConfig,
    seed: int = 0,
    batches: int | None = None,
    bad: BadSamples | None = None,
) -> list[Loss]:
    """The loss of each batch of held-out items, as in `evaluate`; none of a batch of which nothing can be read."""
    device = next(objective.parameters()).device
    size = len(data)
    batch_size = min(config.batch or 32, size)
    steps = math.ceil(size / batch_size)
    was = objective.training
    objective.eval()
    losses, others, spare = [], ranks.data(), None
    steps = steps if batches is None else min(steps, batches)
    try:
        for place in range(others.rank, -(-steps // others.size) * others.size, others.size):
            again = place >= steps  # for company: what is sharded is asked for by all together
            place = min(place, steps - 1)
            keys = [(0, index) for index in range(place * batch_size, min((place + 1) * batch_size, size))]
            batch, broken, _ = data.batch(keys)
            unread = others_bad(broken)
            batch = alike(batch, broken) if unread else batch
            for error in unread:
                if bad is not None:
                    bad.note(error)
            again = again or batch is None
            batch = spare = spare if batch is None else batch
            if batch is None:
                continue
            batch = bucketed(objective.model, batch) if config.compile else batch
            torch.manual_seed(seed_of(seed, "look", place))
            with autocast(resolve(config.precision, device), device), ranks.whole_batch():
                loss = detached(objective(to_device(batch, device)))
            losses += [] if again else [loss]
    finally:
        objective.train(was)
    return losses
