"""Training with several processes: the same command, the same loop, the same figures.

    torchrun --nproc-per-node 4 -m sevenfold train recipes/gpt.yaml

Data parallelism is the default: each process has some rows of every batch, gradients are summed and divided by the count of targets
on all. A recipe's `parallel` says what else is divided: weights (FSDP2), the tokens of a row (context parallelism), heads and channels
(tensor parallelism).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from pydantic import Field

from sevenfold.core import part, ranks
from sevenfold.core.errors import ConfigError
from sevenfold.core.ranks import Mesh, Ranks

LONGEST = 3600.0
"""Seconds that processes wait for the first one where it works alone (the report)."""
_JOINED = count()
"""How often this process has joined others, which do so as often."""


class Parallel(part.Config):
    """How the processes that torchrun starts share the work. Nothing of it changes what is learned, and a run may be
    continued with other settings, and another number of processes."""

    shard: bool = False
    """Shard weights, gradients and optimizer state over the processes (FSDP2), which gather a block's weights when they come to it. For
    models that do not fit otherwise."""
    sequence: int = Field(1, ge=1, le=1024)
    """So many processes share the tokens of each row (context parallel), for long ones. Where dropout is used, what it draws
    depends on it."""
    tensor: int = Field(1, ge=1, le=64)
    """So many processes share the heads and inner channels of each block (tensor parallel): they have the same rows and a slice of the
    weights each, and all-reduce what each part of a block gives. For large models, inside a machine."""
    patience: float = Field(600.0, gt=0)
    """Seconds without a step after which the run ends, naming the process that all wait for, and where it stands."""


@contextmanager
def joined(config: Parallel, device: torch.device) -> Iterator[Mesh]:
    """Among the processes that torchrun has started; alone, if it has not."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        for name in ("sequence", "tensor"):
            if (asked := getattr(config, name)) > 1:
                raise ConfigError(
                    f"parallel.{name}: {asked} needs more than one process: start it with torchrun, or set parallel.{name}=1"
                )
        yield ranks.mesh()
        return
    for name, asked in (("sequence", config.sequence), ("tensor", config.sequence * config.tensor)):
        if size % asked:
            both = f"{config.sequence} × {config.tensor}" if name == "tensor" and config.sequence > 1 else asked
            raise ConfigError(
                f"parallel.{name}: {size} processes cannot be shared out by {both}: start a multiple of {asked}"
            )
    own = not dist.is_initialized()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if own:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        wait = timedelta(seconds=max(2 * config.patience, LONGEST))
        store, place, _ = next(dist.rendezvous("env://", timeout=wait))
        # under a name of its own: what a group before this one left there is not read
        store = dist.PrefixStore(f"joined {next(_JOINED)}", store)
        dist.init_process_group(backend, store=store, rank=place, world_size=size, timeout=wait)
    try:
        with ranks.within(_mesh(config, device)) as mesh:
            yield mesh
    finally:
        if own:
            dist.destroy_process_group()


def _mesh(config: Parallel, device: torch.device) -> Mesh:
    """Groups of processes: those that share heads are neighbours, and then those that share the tokens of a row."""
    size, place = dist.get_world_size(), dist.get_rank()
    grid = torch.arange(size).view(-1, config.sequence, config.tensor)
    data, sequence, tensor, copies = (
        _among(lines.tolist(), place, size, device)
        for lines in (
            grid.permute(1, 2, 0).flatten(0, 1),
            grid.permute(0, 2, 1).flatten(0, 1),
            grid.flatten(0, 1),
            grid.flatten(0, 1).T,
        )
    )
    return Mesh(data, sequence, tensor, copies, Ranks(place, size, None, device))


def _among(lines: list[list[int]], place: int, size: int, device: torch.device) -> Ranks:
    """This process in its line; all processes make the groups of all lines."""
    ours = Ranks(device=device)
    for line in lines:
        group = dist.new_group(line) if 1 < len(line) < size else None
        if place in line and len(line) > 1:
            ours = Ranks(line.index(place), len(line), group, device)
    return ours


def local(device: torch.device) -> torch.device:
    """The device of this process on its machine."""
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


def first_here() -> bool:
    """Whether this process is the one that speaks, before any have met."""
    return os.environ.get("RANK", "0") == "0"


def late(name: str) -> Any:
    """A module of this package that brings a part of PyTorch which takes a second to import: only where weights are sharded."""
    return importlib.import_module(f"{__name__}.{name}")
