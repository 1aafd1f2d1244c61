"""Every random choice is a function of (seed, purpose, epoch, index …): nothing to store, nothing to restore."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def seed_of(*parts: int | str) -> int:
    """A stable 63-bit number from the parts, the same on every machine."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def begin(seed: int, device: torch.device) -> None:
    """Random numbers of the processor and of the device begin anew: as after torch.manual_seed, which where there is no GPU writes down
    who called it, for each kind of them."""
    torch.default_generator.manual_seed(seed)
    if device.type not in ("cpu", "meta"):
        torch.get_device_module(device).manual_seed_all(seed)


def torch_generator(*parts: int | str) -> torch.Generator:
    """A CPU torch generator for these parts."""
    return torch.Generator().manual_seed(seed_of(*parts))


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """A numpy generator for these parts."""
    return np.random.default_rng(seed_of(*parts))
