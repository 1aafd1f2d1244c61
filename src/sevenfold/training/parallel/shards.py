"""State in shares to files and back: each process writes what it has, and reads what it needs, whatever others had.

    model/shard-00001-….safetensors  shard-00002-….safetensors …        each says which part of each tensor it holds

PyTorch's distributed checkpoint with its safetensors storage: nothing is pickled on disk, and where the parts are cut is no
matter when they are read.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader, HuggingFaceStorageWriter

from sevenfold.core.errors import CheckpointError
from sevenfold.core.ranks import Ranks

WRONG = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError, AssertionError)


def write(state: Mapping[str, Tensor], folder: Path, ranks: Ranks) -> None:
    """Write this process's share of a state; all processes must. OSError where one of them cannot."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            storage = HuggingFaceStorageWriter(str(folder), save_distributed=True)
            dcp.save(dict(state), storage_writer=storage, process_group=ranks.group)
    except CheckpointException as error:  # no Exception, but a BaseException
        raise OSError(next((str(why[0]) for why in error.failures.values()), str(error))) from None


def read(folder: Path, like: Callable[[str, torch.Size, torch.dtype], Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Name → tensor, of all that was written. `like` makes the tensor to fill for a name, a shape and a dtype: whole, or
    this process's share of it. CheckpointError where it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            known: Mapping[str, Any] = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
            for name, each in known.items():
                if sum(chunk.sizes.numel() for chunk in each.chunks) != each.size.numel():
                    raise CheckpointError(f"{folder}: parts of {name!r} are missing")
            made = {name: like(name, each.size, each.properties.dtype) for name, each in known.items()}
            if made:
                reader = HuggingFaceStorageReader(str(folder))
                dcp.load(made, storage_reader=reader, process_group=ranks.group, no_dist=ranks.alone)
        return made
    except CheckpointError:
        raise
    except (CheckpointException, SafetensorError, *WRONG) as error:
        raise CheckpointError(f"{folder}: cannot be read: {str(error).splitlines()[0]}") from None
