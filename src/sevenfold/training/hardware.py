"""What a machine can do: measured here in about a second, or taken from its data sheet.

    rate(side) = flops side / (side + half)      operations a second of products of side × side matrices

Data-sheet figures are never reached; SHARE of the operations and BANDWIDTH_SHARE of the bandwidth are what large products
and copies reach in practice (Chowdhery 2022, PaLM, arXiv:2204.02311 section 4: 46 % over whole steps; MegaScale 2024,
arXiv:2402.15627: 55 %).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from sevenfold.core.errors import ConfigError, did_you_mean
from sevenfold.training.precision import NARROW, fast_bf16
from sevenfold.training.recipe import device_of

SHARE, BANDWIDTH_SHARE = 0.55, 0.8
SMALL, LARGE, TOKENS = 64, 256, 1024
"""Widths of the dense layers that are timed, four times as wide inside, and of how many tokens."""
COPIED = 1 << 27
"""Bytes of the copies that are timed."""


class Hardware(NamedTuple):
    """A machine that trains. Rates in operations per second, bandwidth in bytes per second."""

    name: str
    kind: str
    """cpu or cuda."""
    fp32: float
    """Of large products in float32."""
    bf16: float | None
    """Of large products in bf16; None: it has no such instructions."""
    half: float
    """The side at which a product of matrices reaches half of that."""
    bandwidth: float
    """Of pointwise operations."""
    memory: int
    """Bytes that a run may take."""
    overhead: float
    """Seconds that any operation takes."""

    def rate(self, bf16: bool, side: float = 1e9) -> float:
        """Operations per second of products of matrices of this side."""
        whole = (self.bf16 or self.fp32) if bf16 else self.fp32
        return whole * side / (side + self.half)

    def precision(self, width: int) -> str:
        """What `auto` means on it, for trunks of this width."""
        return "fp32" if self.bf16 is None or (self.kind == "cpu" and width < NARROW) else "bf16"

    @staticmethod
    def here(device: torch.device | None = None) -> Hardware:
        """This machine, measured."""
        return _measured(device or device_of(None))

    @staticmethod
    def named(name: str) -> Hardware:
        """A machine by its name, `here` for this one. ConfigError for one that is not known."""
        if name == "here":
            return Hardware.here()
        if name.lower() not in SHEETS:
            raise ConfigError(f"hardware: there is no {name!r}{did_you_mean(name.lower(), ['here', *SHEETS])}")
        return SHEETS[name.lower()]


def _sheet(name: str, fp32: float, bf16: float, bandwidth: float, gigabytes: float) -> Hardware:
    """An accelerator from its data sheet, in 1e12 operations per second, 1e12 bytes per second and 1e9 bytes."""
    return Hardware(
        name, "cuda", SHARE * fp32 * 1e12, SHARE * bf16 * 1e12, 256.0, BANDWIDTH_SHARE * bandwidth * 1e12,
        int(0.92 * gigabytes * 1e9), 1e-5,
    )  # fmt: skip


SHEETS = {
    "a100": _sheet("NVIDIA A100 80GB SXM", 19.5, 312, 2.039, 80),
    "h100": _sheet("NVIDIA H100 80GB SXM", 67, 989, 3.35, 80),
    "h200": _sheet("NVIDIA H200 SXM", 67, 989, 4.8, 141),
}
"""Dense operations without sparsity, of one card: NVIDIA A100 datasheet (nvidia-us-2188504, 2022), H100 datasheet
(nvidia-us-2430615, 2023), H200 datasheet (nvidia-us-3002446, 2023). fp32 without TF32. Eight per cent of the memory is
left to the driver and to fragments."""


@cache
def _measured(device: torch.device) -> Hardware:
    """Rates of products at two sizes, of a pointwise operation, and what a small operation takes."""
    fp32, half = _rates(device, torch.float32)
    bf16 = _rates(device, torch.bfloat16)[0] if fast_bf16(device) else None
    numbers = torch.ones(COPIED // 4, device=device)
    out, small = torch.empty_like(numbers), torch.ones(16, device=device)
    moved = 3 * COPIED / _best(lambda: torch.add(numbers, out, out=out), device)
    overhead = _best(lambda: [torch.add(small, 1.0) for _ in range(200)], device) / 200
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"this CPU, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    )
    return Hardware(name, device.type, fp32, bf16, half, moved, _memory(device), overhead)


def _rates(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """(operations per second of large products, the side that reaches half of it), from a dense layer of two sizes: its
    product, and those of the gradients of its input and of its weights."""
    found, tokens = [], TOKENS if device.type == "cpu" else 16 * TOKENS
    for side in (SMALL, LARGE) if device.type == "cpu" else (4 * SMALL, 8 * LARGE):
        x = torch.randn(tokens, side, device=device).to(dtype)
        weight = torch.randn(4 * side, side, device=device).to(dtype)
        given = torch.randn(tokens, 4 * side, device=device).to(dtype)

        def layer(x: Tensor = x, weight: Tensor = weight, given: Tensor = given) -> object:
            return x @ weight.T, given @ weight, given.T @ x

        found.append((2 * side, 24 * tokens * side**2 / _best(layer, device)))
    (small, slow), (large, fast) = found
    half = max(0.0, (fast - slow) / (slow / small - fast / large)) if slow / small > fast / large else 0.0
    return fast * (1 + half / large), half


def _best(run: Callable[[], object], device: torch.device, tries: int = 5) -> float:
    """The least seconds that it takes."""
    best = float("inf")
    for _ in range(tries):
        begin = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return best


def _memory(device: torch.device) -> int:
    """Bytes that are free for a run: of a GPU all, of a CPU what is available now."""
    if device.type == "cuda":
        return int(0.92 * torch.cuda.get_device_properties(device).total_memory)
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
