"""Collective operations with a gradient; sevenfold.core.ranks says what each of them computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from sevenfold.core.ranks import Ranks


def summed(x: Tensor, ranks: Ranks) -> Tensor:
    """The sum over ranks, in float32 at least."""
    halves = x.dtype in (torch.bfloat16, torch.float16)
    whole = x.float().contiguous() if halves else x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(whole, group=ranks.group)
    return whole.to(x.dtype)


def parts(x: Tensor, ranks: Ranks) -> list[Tensor]:
    """x [b …] of each rank; how many rows each has may differ."""
    counts = [count for (count,) in ranks.gather_ints([len(x)])]
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x
    found = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(found, padded, group=ranks.group)
    return [each[:count] for each, count in zip(found, counts)]


class AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return summed(x, ranks)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return summed(gradients[0], ctx.ranks), None


def reduced(x: Tensor, ranks: Ranks) -> Tensor:
    """The sum over ranks, in the dtype that it has."""
    whole = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(whole, group=ranks.group)
    return whole


class ReduceBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return reduced(gradients[0], ctx.ranks), None


class ReduceForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        return reduced(x, ranks)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


class AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        every = parts(x.to(torch.uint8) if x.dtype == torch.bool else x, ranks)
        begin = sum(map(len, every[: ranks.rank]))
        ctx.ranks, ctx.own = ranks, slice(begin, begin + len(x))
        return torch.cat(every).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return summed(gradients[0], ctx.ranks)[ctx.own], None
