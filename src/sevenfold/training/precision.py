"""In which numbers to compute: bf16 where the processor multiplies it, float32 otherwise or on request, 8 bits on request.

fp8 is bf16 in which the linear layers of blocks multiply 8-bit numbers (sevenfold.blocks.projection._float8); embeddings, heads, norms and
attention stay as they are, and so does what is measured on held-out items.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Literal

import torch

from sevenfold.core.processor import flags

Precision = Literal["auto", "bf16", "fp32", "fp8"]
Chosen = Literal["bf16", "fp32", "fp8"]


def fast_bf16(device: torch.device) -> bool:
    """Whether this device has instructions for bf16 products."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return "avx512_bf16" in flags() or "amx_bf16" in flags()


NARROW = 128
"""Trunks narrower than this gain nothing from bf16 on a CPU: casting costs more than the products save (measured on two
cores with AMX, 4,096 tokens a step: 1.3 times as fast at width 128, 1.5 at 192, 1.75 at 256, 2.0 at 384)."""


def resolve(precision: Precision, device: torch.device, width: int = NARROW) -> Chosen:
    """What `auto` means here, for trunks of this width."""
    if precision != "auto":
        return precision
    pays = device.type != "cpu" or width >= NARROW
    return "bf16" if pays and fast_bf16(device) else "fp32"


def autocast(precision: Chosen, device: torch.device) -> AbstractContextManager:
    """Weights stay float32; matrix products run in bf16."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@cache
def peak_flops(device: torch.device, precision: str) -> float:
    """Floating-point operations per second that a large matrix product reaches here, measured (about 0.1 s)."""
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    n = 4096 if device.type == "cuda" else 1024
    a = torch.ones(n, n, dtype=dtype, device=device)
    best = 0.0
    for _ in range(5):
        begin = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * n**3 / (time.perf_counter() - begin))
    return best
