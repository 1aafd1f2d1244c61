"""Token by token: logits, a choice for every row, and on.

Each yield is a round: the new ids of each row and, if asked for, their log-probabilities under the model's own
distribution, before anything is narrowed. One transfer to the host a round, and none computed that nobody asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sevenfold.assembly.generation.choice import penalised
from sevenfold.assembly.generation.going import Going
from sevenfold.assembly.generation.request import Request
from sevenfold.assembly.generation.row import Row
from sevenfold.assembly.generation.settings import Settings
from sevenfold.core.errors import CheckpointError
from sevenfold.core.seeds import torch_generator


class Round(NamedTuple):
    """New ids of each row, and the log-probability of each (empty where nobody asked)."""

    ids: list[list[int]]
    logprobs: list[list[float]]


class Rules:
    """What logits go through before the choice: ids that never come, and a penalty on those that came."""

    def __init__(self, going: Going, settings: Settings):
        self.never, self.penalty = going.request.never, settings.repetition_penalty
        self.seen: Tensor | None = None
        if self.penalty != 1:
            self.seen = torch.zeros_like(going.begun, dtype=torch.bool)
            for row, ids in enumerate(going.request.begun):
                self.seen[row, torch.as_tensor(ids, device=going.device)] = True

    def take(self, index: Tensor) -> None:
        """Rows, as in `Going.take`."""
        self.seen = None if self.seen is None else self.seen[index]

    def note(self, ids: Tensor) -> None:
        """ids [b] were drawn."""
        if self.seen is not None:
            self.seen.scatter_(1, ids[:, None], True)

    def __call__(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """logits [b v] → [b v]; `seen` [b v] instead of what was noted."""
        seen = self.seen if seen is None else seen
        if seen is not None:
            logits = penalised(logits, seen, self.penalty)
        return logits.index_fill(-1, self.never, float("-inf")) if len(self.never) else logits


def logprobs_of(logits: Tensor, ids: Tensor) -> Tensor:
    """logits [… v], ids [… ] → the log-probability of each."""
    return logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]


def finite(ids: list[int]) -> None:
    """CheckpointError where a choice among NaN was made."""
    if min(ids) < 0:
        raise CheckpointError("the model gives numbers that are not finite, so nothing can be drawn from it")


def together(request: Request, rows: Sequence[Row], settings: Settings, logprobs: bool) -> Iterator[Round]:
    """One token of each row a round, until nobody asks for more. What stands in front of several samples is read once."""
    places = sorted({row.place for row in rows})
    going = Going(request.of(places), settings)
    rules, logits = Rules(going, settings), going.begun
    which = [places.index(row.place) for row in rows]
    for row, place in zip(rows, which):
        row.limit = going.request.limits[place]
    if len(rows) > len(places):
        index = torch.tensor(which, device=going.device)
        going.take(index)
        rules.take(index)
        logits = logits[index]
    longest, uniform = max(going.request.limits), None
    if not settings.greedy:
        uniform = torch.stack([numbers(settings.seed, row.place, row.sample, longest) for row in rows]).to(going.device)
    for place in range(longest):
        ids = settings.choose(rules(logits), None if uniform is None else uniform[:, place])
        if logprobs:
            both = torch.stack([ids.double(), logprobs_of(logits, ids.clamp(min=0)).double()]).tolist()
            new, logs = [int(id) for id in both[0]], [[value] for value in both[1]]
        else:
            new, logs = ids.tolist(), [[] for _ in rows]
        finite(new)
        yield Round([[id] for id in new], logs)
        rules.note(ids)
        logits = going.feed(ids[:, None])


def numbers(seed: int, row: int, sample: int, length: int) -> Tensor:
    """Uniform numbers [length] in [0, 1), float64, for one row: the same whatever else is drawn."""
    return torch.rand(length, dtype=torch.float64, generator=torch_generator("draw", seed, row, sample))
