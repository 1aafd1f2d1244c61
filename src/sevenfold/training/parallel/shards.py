"""Sharded state to files and back: each process writes what it has and reads what it needs, whatever the layout was that wrote it.

    model/shard-00001-….safetensors  shard-00002-….safetensors …        each says which part of each tensor it holds

PyTorch's distributed checkpoint with its safetensors storage: nothing is pickled on disk, and another layout can read it. A process
that has some heads of a matrix has several pieces of it (queries, keys, values); the file says where each begins in the whole.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from sevenfold.core.cut import Cut
from sevenfold.core.errors import CheckpointError
from sevenfold.core.ranks import Ranks

WRONG = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError, AssertionError)


class Pieces:
    """This process's slice of a tensor that is cut, as PyTorch's planner asks for it: pieces, and where each begins in the whole."""

    def __init__(self, part: Any, cut: Cut):
        self.own: Tensor = part.to_local() if isinstance(part, DTensor) else part
        self.all, axis = cut.whole(part.shape), cut.axis
        begins: tuple[int, ...] = (0,) * part.dim()  # where what it has begins in what all with the same heads have
        if isinstance(part, DTensor):
            begins = compute_local_shape_and_global_offset(part.shape, part.device_mesh, part.placements)[1]
        self.pieces: list[tuple[Tensor, ChunkStorageMetadata]] = []
        first, last = begins[axis], begins[axis] + self.own.shape[axis]
        for begin, at, size in cut.pieces(cut.rank):
            low, high = max(begin, first), min(begin + size, last)
            if low < high and self.own.numel():
                piece = self.own.narrow(axis, low - first, high - low)
                offsets = torch.Size([*begins[:axis], at + low - begin, *begins[axis + 1 :]])
                self.pieces.append((piece, ChunkStorageMetadata(offsets, piece.shape)))

    def __create_write_items__(self, name: str, _: Any) -> list[WriteItem]:
        made = TensorProperties.create_from_tensor(self.own)
        return [
            WriteItem(
                MetadataIndex(name, chunk.offsets), WriteItemType.SHARD, None, TensorWriteData(chunk, made, self.all)
            )
            for _, chunk in self.pieces
        ]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [chunk for _, chunk in self.pieces]

    def at(self, index: MetadataIndex) -> Tensor:
        """The piece that lies there."""
        return next(piece for piece, chunk in self.pieces if chunk.offsets == index.offset)


class Writing(dcp.DefaultSavePlanner):
    """Finds pieces."""

    def lookup_object(self, index: MetadataIndex) -> Any:
        found = self.state_dict[index.fqn]
        return found.at(index) if isinstance(found, Pieces) else super().lookup_object(index)


class Reading(dcp.DefaultLoadPlanner):
    """Finds pieces, which the default one takes for nothing."""

    def set_up_planner(self, state_dict: Any, metadata: Any = None, is_coordinator: bool = False) -> None:
        self.state_dict = self.original_state_dict = state_dict
        self.metadata, self.is_coordinator, self.flatten_state_dict = metadata, is_coordinator, False

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        found: Any = self.state_dict[index.fqn]
        return found.at(index) if isinstance(found, Pieces) else super().lookup_tensor(index)


class Writer(HuggingFaceStorageWriter):
    """Pieces of one tensor go to different files: a file holds one tensor of a name."""

    def _split_by_storage_plan(self, _: Any, items: list[WriteItem]) -> dict[int, list[WriteItem]]:
        found: dict[int, list[WriteItem]] = {}
        count: Counter[str] = Counter()
        for item in items:
            count[item.index.fqn] += 1
            found.setdefault(count[item.index.fqn], []).append(item)
        return found


def write(state: Mapping[str, Tensor], folder: Path, ranks: Ranks, cuts: Mapping[str, Cut]) -> None:
    """Write this process's part of a state; all processes must call it. OSError where one of them cannot."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            storage = Writer(str(folder), save_distributed=True)
            given = {name: Pieces(value, cuts[name]) if name in cuts else value for name, value in state.items()}
            dcp.save(given, storage_writer=storage, planner=Writing(), process_group=ranks.group)
    except CheckpointException as error:  # no Exception, but a BaseException
        raise OSError(_why(error)) from None


def read(
    folder: Path, like: Callable[[str, torch.Size, torch.dtype], Tensor], ranks: Ranks, cuts: Mapping[str, Cut]
) -> dict[str, Tensor]:
    """Name → tensor, of all that was written. `like` makes the tensor to fill for a name, a shape and a dtype: whole, or
    this process's part of it. CheckpointError where it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            known: Mapping[str, Any] = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
            for name, each in known.items():
                if not filled_by(each.size, [(chunk.offsets, chunk.sizes) for chunk in each.chunks]):
                    raise CheckpointError(
                        f"{folder}: the parts of {name!r} do not make it: some are missing, or overlap"
                    )
            made = {name: like(name, each.size, each.properties.dtype) for name, each in known.items()}
            if made:
                reader = HuggingFaceStorageReader(str(folder))
                filled = {name: _filled(name, value, cuts) for name, value in made.items()}
                dcp.load(
                    filled, storage_reader=reader, planner=Reading(), process_group=ranks.group, no_dist=ranks.alone
                )
        return made
    except CheckpointError:
        raise
    except (CheckpointException, SafetensorError, *WRONG) as error:
        raise CheckpointError(f"{folder}: cannot be read: {_why(error).splitlines()[0]}") from None


def filled_by(whole: Sequence[int], parts: Iterable[tuple[Sequence[int], Sequence[int]]]) -> bool:
    """Whether parts (where each begins, its sizes) fill a whole: each number of it lies in one part, and none beside it."""
    spans = [[(at, at + size) for at, size in zip(*part, strict=True)] for part in parts]
    boxes = sorted(box for box in spans if all(begin < end for begin, end in box))
    inside = all(begin >= 0 and end <= size for box in boxes for (begin, end), size in zip(box, whole, strict=True))
    if not inside or sum(math.prod(end - begin for begin, end in box) for box in boxes) != math.prod(whole):
        return False
    near: list[list[tuple[int, int]]] = []  # those that reach as far as this one, along the first axis
    for box in boxes:
        near = [other for other in near if other[0][1] > box[0][0]]
        if any(all(a < d and c < b for (a, b), (c, d) in zip(box, other)) for other in near):
            return False
        near.append(box)
    return True


def _filled(name: str, made: Tensor, cuts: Mapping[str, Cut]) -> Any:
    cut = cuts.get(name.partition("|")[0])
    return made if cut is None or not made.dim() else Pieces(made, cut)


def _why(error: BaseException) -> str:
    """What the first process of a failure says."""
    failures: Mapping[Any, Any] = getattr(error, "failures", {})
    return next((str(why[0]) for why in failures.values()), str(error))
