"""Training with several processes: the same command, the same loop, the same figures.

    torchrun --nproc-per-node 4 -m sevenfold train recipes/gpt.yaml

Each process has its share of every batch's rows; gradients are added up, and divided by what is counted on all of them. What
a recipe's `parallel` says beyond that is how the weights lie.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from pydantic import Field

from sevenfold.core import part, ranks
from sevenfold.core.errors import ConfigError
from sevenfold.core.ranks import Mesh, Ranks

LONGEST = 3600.0
"""Seconds that processes wait for the first one where it works alone (the report)."""


class Parallel(part.Config):
    """How the processes that torchrun starts share the work. Nothing of it changes what is learned, and a run may be
    continued with other settings, and another number of processes."""

    shard: bool = False
    """Each process keeps a share of the weights, gradients and optimizer state only (FSDP2), and asks for a block's weights
    when it comes to it. For models that do not fit otherwise."""
    sequence: int = Field(1, ge=1, le=1024)
    """So many processes share the tokens of each row (context parallel), for long ones. Where dropout is used, what it draws
    depends on it."""
    patience: float = Field(600.0, gt=0)
    """Seconds without a step after which the run ends, naming the process that all wait for, and where it stands."""


@contextmanager
def joined(config: Parallel, device: torch.device) -> Iterator[Mesh]:
    """Among the processes that torchrun has started; alone, if it has not."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        if config.sequence > 1:
            raise ConfigError(
                f"parallel.sequence: {config.sequence} needs more than one process: start it with torchrun"
            )
        yield ranks.mesh()
        return
    if size % config.sequence:
        raise ConfigError(f"parallel.sequence: {size} processes cannot be shared out by {config.sequence}")
    own = not dist.is_initialized()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if own:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=max(2 * config.patience, LONGEST)))
    try:
        with ranks.within(_mesh(config, device)) as mesh:
            yield mesh
    finally:
        if own:
            dist.destroy_process_group()


def _mesh(config: Parallel, device: torch.device) -> Mesh:
    """Groups of processes: those of a row are neighbours."""
    size, place = dist.get_world_size(), dist.get_rank()
    every = torch.arange(size).view(size // config.sequence, config.sequence)
    found = []
    for lines in (every.T.tolist(), every.tolist()):
        ours = Ranks(device=device)
        for line in lines:
            group = dist.new_group(line) if 1 < len(line) < size else None
            if place in line and len(line) > 1:
                ours = Ranks(line.index(place), len(line), group, device)
        found.append(ours)
    return Mesh(found[0], found[1], Ranks(place, size, None, device))


def local(device: torch.device) -> torch.device:
    """The device of this process on its machine."""
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


def first_here() -> bool:
    """Whether this process is the one that speaks, before any have met."""
    return os.environ.get("RANK", "0") == "0"


def late(name: str) -> Any:
    """A module of this package that brings a part of PyTorch which takes a second to import: only where weights are in shares."""
    return importlib.import_module(f"{__name__}.{name}")
