"""Overlapping windows of a sequence that are not copied, and whose gradients are added window on window."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Windows(torch.autograd.Function):
    """x [b h n d] → [b h count span d]: window j begins at token j * size - before; there is 0 beyond the ends.

    All windows are one padded copy of x, seen `count` times. Their gradients are added in ceil(span / size) additions of
    whole pieces, where the gradient of `Tensor.unfold` would add number by number.
    """

    @staticmethod
    def forward(x: Tensor, before: int, size: int, span: int, count: int) -> Tensor:
        after = (count - 1) * size + span - before - x.shape[2]
        return F.pad(x, (0, 0, before, after)).unfold(2, span, size).transpose(3, 4)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.before, ctx.size, ctx.span, ctx.count = inputs
        ctx.tokens = x.shape[2]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        b, h, count, span, d = grad.shape
        size, pieces = ctx.size, -(-span // ctx.size)
        total = grad.new_zeros(b, (count + pieces - 1) * size, h, d).transpose(1, 2)  # heads of a token side by side
        for start in range(0, span, size):
            piece = grad[:, :, :, start : start + size]
            target = total[:, :, start : start + count * size].unflatten(2, (count, size))
            target[:, :, :, : piece.shape[3]].add_(piece)
        return total[:, :, ctx.before : ctx.before + ctx.tokens], None, None, None, None


def windows(x: Tensor, before: int, size: int, span: int, count: int) -> Tensor:
    """See Windows."""
    return Windows.apply(x, before, size, span, count)
