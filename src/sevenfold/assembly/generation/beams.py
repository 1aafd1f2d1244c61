"""Beam search: the sequences of greatest log-probability, a fixed number of them followed at once.

    score(y) = sum_i log p(y_i | y_<i) / |y|^alpha          Wu 2016, arXiv:1609.08144 section 7, in its simple form

Of 2B candidates of every step those that end are finished, the best B others go on; it is over when no open sequence can
become better than the worst finished one at its present length. The same rule as in `transformers`.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import Tensor

from sevenfold.assembly.generation.going import Going
from sevenfold.assembly.generation.rounds import Rules, finite
from sevenfold.assembly.generation.settings import Settings

NEVER = -1e9
"""The score of what is not there."""


class Found(NamedTuple):
    """A sequence: its new ids, the log-probability of each, and why it stopped."""

    ids: list[int]
    logprobs: list[float]
    stopped: str


class Beams(NamedTuple):
    """B sequences of each prompt: ids and log-probabilities [p B n], lengths [p B], scores [p B]."""

    ids: Tensor
    logs: Tensor
    lengths: Tensor
    scores: Tensor

    def at(self, index: Tensor) -> Beams:
        """Of each prompt those at index [p k]."""
        wide = index[..., None].expand(-1, -1, self.ids.shape[-1])
        ids, logs = self.ids.gather(1, wide), self.logs.gather(1, wide)
        return Beams(ids, logs, self.lengths.gather(1, index), self.scores.gather(1, index))

    def beside(self, other: Beams) -> Beams:
        return Beams._make(torch.cat(both, 1) for both in zip(self, other))


def search(going: Going, rules: Rules, settings: Settings, until: float | None) -> list[list[Found]]:
    """The best `count` sequences of each prompt, best first. Both are used up."""
    begun, b, alpha = going.begun, settings.beams, settings.length_penalty
    p, v, device, end = len(begun), begun.shape[-1], begun.device, going.request.end
    limits = torch.tensor(going.request.limits, device=device)[:, None]
    longest = int(limits.max())
    rows = torch.arange(p, device=device)[:, None]
    every = rows.expand(p, b).reshape(-1)
    going.take(every)
    rules.take(every)
    ids = torch.zeros(p, b, longest, dtype=torch.long, device=device)
    logs = begun.new_zeros(p, b, longest)
    scores = begun.new_full((p, b), NEVER)
    done = Beams(ids, logs, torch.zeros(p, b, dtype=torch.long, device=device), scores)
    scores = scores.clone()
    scores[:, 0] = 0  # all begin alike: only one of them counts
    open = done._replace(scores=scores)
    logits, hopeful = begun[every], torch.ones(p, 1, dtype=torch.bool, device=device)
    for place in range(longest):
        own = logits.log_softmax(-1)
        total = (rules(own).view(p, b, v) + open.scores[..., None]).flatten(1)
        top, index = total.topk(2 * b, dim=-1)
        beam, new = index // v, index % v
        found = open.at(beam)._replace(scores=top)
        found.ids[..., place] = new
        found.logs[..., place] = own.view(p, -1).gather(1, index)
        found = found._replace(lengths=torch.full_like(new, place + 1))
        over = place + 1 >= limits
        if until is not None and time.monotonic() > until:
            over = torch.ones_like(over)
        hits = over.expand_as(new) if end is None else (new == end) | over
        # those that end, among the best b
        ended = hits & (torch.arange(new.shape[1], device=device) < b) & hopeful
        finished = found._replace(scores=torch.where(ended, top / (place + 1) ** alpha, NEVER))
        done = done.beside(finished)
        done = done.at(done.scores.topk(b, dim=-1).indices)
        # those that go on
        going_on = torch.where(hits, top + NEVER, top).topk(b, dim=-1)
        open = found.at(going_on.indices)._replace(scores=going_on.values)
        worst = done.scores.amin(1, keepdim=True)
        hopeful = hopeful & (open.scores[:, :1] / (place + 1) ** alpha > worst)
        stop, broken = torch.stack([(~hopeful | over).all(), top.isnan().any()]).tolist()
        finite([-broken])
        if stop:
            break
        last = open.ids[..., place].reshape(-1)
        chosen = (rows * b + beam.gather(1, going_on.indices)).reshape(-1)
        going.take(chosen)
        rules.take(chosen)
        rules.note(last)
        logits = going.feed(last[:, None])
    return [
        [_found(done, row, k, end, limit) for k in range(settings.count)] for row, limit in enumerate(limits.tolist())
    ]


def _found(done: Beams, row: int, k: int, end: int | None, limit: list[int]) -> Found:
    size = int(done.lengths[row, k])
    ids = done.ids[row, k, :size].tolist()
    stopped = "end" if end in ids[-1:] else "length" if size == limit[0] else "time"
    return Found(ids, done.logs[row, k, :size].tolist(), stopped)
