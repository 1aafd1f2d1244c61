"""What the process does with memory that it has no use for at the moment: it keeps it.

glibc gives large blocks back to the system when they are freed, and a step frees and asks for all of its activations: each page is
then cleared and mapped anew, step after step. With its thresholds raised (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD) freed memory
is used again. The process stays as large as its largest moment was, which the planner has foretold.
"""

from __future__ import annotations

import ctypes
import os

import torch

TRIM, MMAP = -1, -3
"""Their numbers in malloc.h."""
MOST = (1 << 31) - 1
CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "LD_PRELOAD")
"""Settings of somebody who chose for themselves, or has another allocator."""


def keep_freed(device: torch.device) -> bool:
    """From now on, keep what is freed, where tensors are in this process's own memory; whether it does."""
    if device.type != "cpu" or any(name in os.environ for name in CHOSEN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    # glibc before 2.35 takes no more than 32 MiB; with TRIM alone it would no longer find a threshold by itself
    return (bool(mallopt(MMAP, 1 << 30)) or bool(mallopt(MMAP, 1 << 25))) and bool(mallopt(TRIM, MOST))
