"""y = x W^T + b with products of 8-bit numbers: e4m3 for x and W, e5m2 for gradients, each tensor under a scale of its own.

    y = 2^-(a+b) X8 W8^T + b,   dX = 2^-(c+b) D8 W8,   dW = 2^-(c+a) D8^T X8      X8 = e4m3(2^a x), W8 = e4m3(2^b W), D8 = e5m2(2^c dy)

Scales are powers of two, made anew each time from the largest number of the tensor: they round nothing. Sums are in float32, results in
bf16. Micikevicius 2022, arXiv:2209.05433. Where the device has such products (CUDA from 8.9 on) they are its own; elsewhere the
same 8-bit numbers are multiplied in bf16, which holds them exactly: as slow as bf16 and a little more, and the same curve.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SIDE = 16
"""Sides that such products have are multiples of it."""
FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
TOP = {FORWARD: 7, BACKWARD: 14}
"""The largest number of a tensor is brought to 2^TOP … 2^(TOP+1), which the type holds (to 448 and 57,344)."""
MANTISSA = 23
"""Bits of a float32 behind its exponent."""


def fits(width_in: int, width_out: int) -> bool:
    """Whether a matrix has sides for it."""
    return not (width_in % SIDE or width_out % SIDE)


@cache
def native(device: torch.device) -> bool:
    """Whether the device multiplies 8-bit numbers."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def linear8(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [… i], W [o i], b [o] or None → [… o] in bf16."""
    y: Tensor = _Linear8.apply(x.reshape(-1, x.shape[-1]), weight)
    y = y.view(*x.shape[:-1], -1)
    return y if bias is None else y + bias.to(y.dtype)


def narrowed(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(2^k x in 8 bits, 2^-k), for the k that TOP asks for. Nothing is asked of the host."""
    field = x.abs().amax().float().view(torch.int32) & (0xFF << MANTISSA)  # the exponent of the largest number
    top = TOP[dtype] << MANTISSA
    scale = ((254 << MANTISSA) + top - field.clamp(min=top)).view(torch.float32)
    return (x * scale).to(dtype), scale.reciprocal()


def product(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor) -> Tensor:
    """scale_a scale_b A B of 8-bit A [m k] and B [k n], in bf16."""
    if not native(a.device):
        return (a.bfloat16() @ b.bfloat16()) * (scale_a * scale_b)
    more = -a.shape[1] % SIDE
    if more:  # of as many tokens as there are; 8-bit numbers are padded as bytes
        a, b = _bytes(a, (0, more)), _bytes(b, (0, 0, 0, more))
    columns = b.t().contiguous().t()
    made: Tensor = torch._scaled_mm(
        a.contiguous(), columns, scale_a=scale_a, scale_b=scale_b, out_dtype=torch.bfloat16, use_fast_accum=False
    )
    return made


def _bytes(x: Tensor, more: tuple[int, ...]) -> Tensor:
    return F.pad(x.view(torch.uint8), more).view(x.dtype)


class _Linear8(torch.autograd.Function):
    """x [n i], W [o i] → [n o]. What is kept for the backward pass are 8-bit numbers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        (x8, of_x), (w8, of_w) = narrowed(x, FORWARD), narrowed(weight, FORWARD)
        ctx.save_for_backward(x8, of_x, w8, of_w)
        ctx.types = x.dtype, weight.dtype
        return product(x8, w8.t(), of_x, of_w)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        x8, of_x, w8, of_w = ctx.saved_tensors
        d8, of_d = narrowed(d_y, BACKWARD)
        d_x = product(d8, w8, of_d, of_w).to(ctx.types[0]) if ctx.needs_input_grad[0] else None
        d_weight = product(d8.t(), x8, of_d, of_x).to(ctx.types[1]) if ctx.needs_input_grad[1] else None
        return d_x, d_weight
