"""Gradients of all processes added up, while the backward pass still runs.

    g = sum_r g_r,     in buckets of some megabytes, the last layers' first; divided by what all have counted, once

Li 2020 (DistributedDataParallel), arXiv:2006.15704 section 3.2, but for the mean: sums and counts make what is masked or of
unequal length exact. A parameter that no process has a gradient for has none, so that optimizers leave it alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sevenfold.core.ranks import Ranks
from sevenfold.training.parallel import late

BUCKET = 25 << 20
"""Bytes that are sent at once."""


class Gradients:
    """Of parameters that every process has whole. Where the process is alone it does nothing."""

    def __init__(self, parameters: Iterable[nn.Parameter], ranks: Ranks):
        self.ranks = ranks if ranks.alone else ranks._replace(group=dist.new_group())  # sends while others talk
        self.parameters = [] if ranks.alone else [p for p in parameters if not sharded(p)]
        self.buckets: list[list[nn.Parameter]] = []
        size = BUCKET
        for parameter in reversed(self.parameters):
            if size >= BUCKET or parameter.dtype != self.buckets[-1][0].dtype:
                self.buckets.append([])
                size = 0
            self.buckets[-1].append(parameter)
            size += parameter.numel() * parameter.element_size()
        self._of = {id(p): place for place, bucket in enumerate(self.buckets) for p in bucket}
        self._missing: list[set[int]] = []
        self._sent: list[tuple[Tensor, Any]] = []
        self._hooks = [p.register_post_accumulate_grad_hook(self._ready) for p in self.parameters]

    def last(self) -> None:
        """The backward pass that comes next is the last one of this step: what is ready may be sent."""
        self._missing = [{id(p) for p in bucket} for bucket in self.buckets]

    def _ready(self, parameter: Tensor) -> None:
        if self._missing:
            self._missing[self._of[id(parameter)]].discard(id(parameter))
            while len(self._sent) < len(self.buckets) and not self._missing[len(self._sent)]:
                self._send()

    def _send(self) -> None:
        """The next bucket: all processes send them in the same order."""
        bucket = self.buckets[len(self._sent)]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
        self._sent.append((flat, dist.all_reduce(flat, group=self.ranks.group, async_op=True)))

    def finish(self, total: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """After the backward passes of a step: every gradient is that of all processes. Returns the total and the count of all."""
        if self.ranks.alone:
            return total, count
        while len(self._sent) < len(self.buckets):  # what this process has no gradient for: in the order of all
            self._send()
        has = torch.tensor([float(p.grad is not None) for p in self.parameters], device=count.device)
        both = torch.stack([total.detach().double(), count.detach().double()])
        told = self.ranks.added(torch.cat([both, has.double()]))
        for bucket, (flat, work) in zip(self.buckets, self._sent):
            work.wait()
            for parameter, whole in zip(bucket, flat.split([p.numel() for p in bucket])):
                parameter.grad = whole.view_as(parameter)
        for parameter, some in zip(self.parameters, told[2:].tolist()):
            if not some:
                parameter.grad = None
        self._missing, self._sent = [], []
        return told[0], told[1]

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def sharded(x: Tensor) -> bool:
    """Whether a process has only a share of it (a DTensor)."""
    return hasattr(x, "placements")


def own(x: Any) -> Tensor:
    """What this process has of it."""
    found: Tensor = x.to_local() if sharded(x) else x
    return found


def whole(x: Any) -> Tensor:
    """All of it; every process must ask."""
    found: Tensor = x.full_tensor() if sharded(x) else x
    return found


def placed(parameter: Any, value: Tensor) -> Tensor:
    """A whole tensor as the parameter lies: this process's share of it."""
    if not sharded(parameter):
        return value
    found: Tensor = late("sharding").share_of(parameter, value)
    return found


def clip(parameters: list[nn.Parameter], most: float, ranks: Ranks) -> float:
    """Scale gradients so that the norm of all is at most `most`; returns what it was."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not any(map(sharded, gradients)):
        return float(torch.nn.utils.clip_grad_norm_(parameters, most))
    squares = [torch.zeros((), dtype=torch.float64, device=own(gradients[0]).device) for _ in range(2)]
    for gradient in gradients:
        squares[sharded(gradient)] += own(gradient).double().square().sum()
    norm = float((squares[0] + ranks.added(squares[1])).sqrt())
    factor = min(1.0, most / (norm + 1e-6))
    if factor < 1:
        torch._foreach_mul_([own(gradient) for gradient in gradients], factor)
    return norm
