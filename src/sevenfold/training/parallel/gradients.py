"""Gradients, all-reduced over processes while the backward pass still runs.

    g = sum_r g_r,     in buckets of some megabytes, the last layers' first; divided by the count of all targets, once

Li 2020 (DistributedDataParallel), arXiv:2006.15704 section 3.2, but for the mean: sums and counts make what is masked or of
unequal length exact. A parameter that no process has a gradient for has none, so that optimizers leave it alone. Under tensor
parallelism r runs over the processes that have the same slice of a weight. A weight that all of them have whole has the same gradient
on each (or only what its heads give), and the mean (or the sum) keeps its copies the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sevenfold.core import ranks
from sevenfold.core.cut import Cut
from sevenfold.core.ranks import Mesh, Ranks, own
from sevenfold.objective import Objective
from sevenfold.training.parallel import late
from sevenfold.training.parallel.tensor import placement

BUCKET = 25 << 20
"""Bytes of gradients that are all-reduced at once."""


class Bucket(NamedTuple):
    """Parameters whose gradients are all-reduced at once: in which group, and what the sum is multiplied by."""

    parameters: list[nn.Parameter]
    ranks: Ranks
    factor: float


class Gradients:
    """The gradients of an objective's parameters; sharded ones (FSDP2) are reduced by themselves, but for tensor parallelism. Where the
    process is alone it does nothing."""

    def __init__(self, objective: Objective | None = None, mesh: Mesh = Mesh()):  # noqa: B008
        self.mesh, self.cut, self.same = mesh, frozenset[int](), frozenset[int]()
        """`cut`: the parameters of which this process has a slice, by identity; `same`: of the others those whose gradient is
        the same on all of the tensor-parallel group."""
        named = {} if objective is None else {n: p for n, p in objective.named_parameters() if p.requires_grad}
        if objective is not None and not mesh.tensor.alone:
            how = placement(objective)
            self.cut = frozenset(id(p) for name, p in named.items() if name in how.cut)
            self.same = frozenset(id(p) for n, p in named.items() if n not in how.cut and n not in how.partial)
        self.parameters = [] if mesh.every.alone else [p for p in named.values() if not sharded(p)]
        self.partly_sharded = [] if mesh.tensor.alone else [p for p in named.values() if self._left(p)]
        self.buckets = self._buckets()
        self._of = {id(p): place for place, bucket in enumerate(self.buckets) for p in bucket.parameters}
        self._missing: list[set[int]] = []
        self._sent: list[tuple[Tensor, Any]] = []
        self._hooks = [p.register_post_accumulate_grad_hook(self._ready) for b in self.buckets for p in b.parameters]

    def _left(self, parameter: Any) -> bool:
        """Whether it is sharded only within the group that has the same slices, so that FSDP2 reduces it there only."""
        cut = id(parameter) in self.cut
        return sharded(parameter) and not cut and parameter.device_mesh.size() < self.mesh.every.size

    def _buckets(self) -> list[Bucket]:
        found: list[Bucket] = []
        apart: dict[bool, Ranks] = {}  # groups of their own: other collectives run meanwhile
        filling: dict[Any, tuple[int, int]] = {}  # the last bucket of each kind, and its bytes
        for parameter in reversed(self.parameters):
            cut, same = id(parameter) in self.cut, id(parameter) in self.same
            if (self.mesh.copies if cut else self.mesh.every).alone:
                continue
            place, size = filling.get((parameter.dtype, cut, same), (0, BUCKET))
            if size >= BUCKET:
                if cut not in apart:
                    apart[cut] = _again(self.mesh.copies if cut else self.mesh.every)
                place, size = len(found), 0
                found.append(Bucket([], apart[cut], 1 / self.mesh.tensor.size if same else 1.0))
            found[place].parameters.append(parameter)
            size += parameter.numel() * parameter.element_size()
            filling[parameter.dtype, cut, same] = place, size
        return found

    def last(self) -> None:
        """The next backward pass is the last one of this step: a bucket whose gradients are ready may be all-reduced."""
        self._missing = [{id(p) for p in bucket.parameters} for bucket in self.buckets]

    def _ready(self, parameter: Tensor) -> None:
        if self._missing:
            self._missing[self._of[id(parameter)]].discard(id(parameter))
            while len(self._sent) < len(self.buckets) and not self._missing[len(self._sent)]:
                self._send()

    def _send(self) -> None:
        """All-reduce the next bucket: all processes do so in the same order."""
        bucket = self.buckets[len(self._sent)]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket.parameters])
        self._sent.append((flat, dist.all_reduce(flat, group=bucket.ranks.group, async_op=True)))

    def finish(self, total: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """After the backward passes of a step: every gradient becomes the sum over processes. Returns the total and the count over all."""
        if self.mesh.every.alone:
            return total, count
        while len(self._sent) < len(self.buckets):  # what this process has no gradient for, as zeros
            self._send()
        has = torch.tensor([float(p.grad is not None) for p in self.parameters], device=count.device)
        both = torch.stack([total.detach().double(), count.detach().double()])
        told = self.mesh.every.all_reduce_no_grad(torch.cat([both, has.double()]))
        for bucket, (flat, work) in zip(self.buckets, self._sent):
            work.wait()
            if bucket.factor != 1:
                flat.mul_(bucket.factor)
            for parameter, whole in zip(bucket.parameters, flat.split([p.numel() for p in bucket.parameters])):
                parameter.grad = whole.view_as(parameter)
        for parameter, some in zip(self.parameters, told[2:].tolist()):
            if not some:
                parameter.grad = None
        self._finish_sharded()
        self._missing, self._sent = [], []
        return told[0] / self.mesh.tensor.size, told[1] / self.mesh.tensor.size

    def _finish_sharded(self) -> None:
        """All-reduce over the tensor-parallel group what FSDP2 has reduced within the others only."""
        left = [parameter for parameter in self.partly_sharded if parameter.grad is not None]
        for dtype in dict.fromkeys(parameter.dtype for parameter in left):
            those = [parameter for parameter in left if parameter.dtype == dtype]
            grads = [own(parameter.grad) for parameter in those]
            flat = torch.cat([grad.flatten() for grad in grads])
            dist.all_reduce(flat, group=self.mesh.tensor.group)
            for parameter, grad, whole in zip(those, grads, flat.split([grad.numel() for grad in grads])):
                grad.copy_(whole.view_as(grad) / (self.mesh.tensor.size if id(parameter) in self.same else 1))

    def clip(self, parameters: list[nn.Parameter], most: float) -> Tensor:
        """Scale gradients so that their global norm is at most `most`; returns the norm before."""
        held = [parameter for parameter in parameters if parameter.grad is not None]
        if not any(sharded(parameter) or id(parameter) in self.cut for parameter in held):
            return torch.nn.utils.clip_grad_norm_(parameters, most)
        grads = [own(parameter.grad) for parameter in held]
        alike, others = (torch.zeros((), dtype=torch.float64, device=grads[0].device) for _ in range(2))
        for parameter, grad in zip(held, grads):
            parts, square = self._parts(parameter), grad.double().square().sum()
            if parts == 1:
                alike += square
            else:
                others += square * parts / self.mesh.every.size  # so many have the same
        norm = (alike + self.mesh.every.all_reduce_no_grad(others)).sqrt()
        torch._foreach_mul_(grads, (most / (norm + 1e-6)).clamp(max=1))
        return norm

    def _parts(self, parameter: Any) -> int:
        """Into how many different parts it is divided over processes."""
        shares = parameter.device_mesh.size() if sharded(parameter) else 1
        return int(shares * (self.mesh.tensor.size if id(parameter) in self.cut else 1))

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _again(ranks: Ranks) -> Ranks:
    """The same processes in another group."""
    members = dist.get_process_group_ranks(ranks.group or dist.group.WORLD)
    return ranks._replace(group=dist.new_group(members, use_local_synchronization=True))


def sharded(x: Any) -> bool:
    """Whether a process has only a shard of it (a DTensor)."""
    return hasattr(x, "placements")


def whole(x: Any, cut: Cut | None = None) -> Tensor:
    """The whole of a tensor that is sharded or cut: a collective, which every process must call."""
    found: Tensor = x.full_tensor() if sharded(x) else x
    if cut is None or ranks.tensor().alone:
        return found
    parts = [torch.empty_like(found, memory_format=torch.contiguous_format) for _ in range(cut.among)]
    dist.all_gather(parts, found.contiguous(), group=ranks.tensor().group)
    return cut.joined(parts)


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """The whole of every tensor of a module, by name, in the host's memory, gathered one after the other; every process must call it."""
    cuts = placement(module).cut
    return {name: whole(value.detach(), cuts.get(name)).cpu() for name, value in module.state_dict().items()}


def placed(parameter: Any, value: Tensor, cut: Cut | None = None) -> Tensor:
    """This process's part of a whole tensor, placed as the parameter is; a part that is placed so already stays as it is."""
    if cut is not None and value.shape != parameter.shape:
        value = cut.of(value)
    if not sharded(parameter) or sharded(value):
        return value
    found: Tensor = late("sharding").shard_of(parameter, value)
    return found


def fits(parameter: Tensor, value: Tensor, cut: Cut | None = None) -> bool:
    """Whether it has the shape of the whole parameter, or of this process's part of it."""
    return value.shape in (parameter.shape, cut.whole(parameter.shape) if cut else parameter.shape)
