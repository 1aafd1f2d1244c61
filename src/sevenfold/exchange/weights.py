"""The tensors of a published folder, by memory map: `model.safetensors`, or shards with an index.

Nothing is read until it is used, and nothing is copied: a tensor is a view of the file's pages. A file that is missing, cut
off or not what the index says is named before any model is built.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sevenfold.core.errors import CheckpointError
from sevenfold.core.files import MANIFEST, read_json, sha256, verify_manifest

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "*.pt", "*.pth", "*.bin", "*.ckpt", "*.pkl")
OTHERS = {"tf_model.h5": "TensorFlow", "flax_model.msgpack": "Flax", "model.onnx": "ONNX", "*.gguf": "GGUF"}
SHARD = 4 << 30
"""Bytes of one file, beyond which weights are written in shards."""


def files(folder: Path) -> list[Path]:
    """The weight files of a folder, all of them there. CheckpointError, one line, says what is missing or refused."""
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file():
        return [single]
    if index.is_file():
        return [folder / name for name in sorted(set(_weight_map(index).values()))]
    pickled = next((path.name for pattern in PICKLES for path in sorted(folder.glob(pattern))), None)
    if pickled is not None:
        raise CheckpointError(
            f"{folder / pickled}: is a pickle, which can run code when it is read, so it is not: load it once where you trust "
            "it and save it as safetensors (in transformers: model.save_pretrained(folder))"
        )
    other = next((f"{path.name} ({what})" for name, what in OTHERS.items() for path in sorted(folder.glob(name))), None)
    beside = f" (only {other}, which is not read)" if other else ""
    raise CheckpointError(
        f"{single}: is missing{beside}: a published folder holds its weights there, or in shards with {INDEX}"
    )


def of_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file, memory-mapped. CheckpointError if it is missing or not whole."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: is missing") from None
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file: {str(error).splitlines()[0]}") from None


def tensors(folder: Path) -> dict[str, Tensor]:
    """Name → tensor, memory-mapped. CheckpointError names a file that is not whole or not what the index says."""
    found: dict[str, Tensor] = {}
    for path in files(folder):
        held = of_file(path)
        twice = next((name for name in held if name in found), None)
        if twice is not None:
            raise CheckpointError(f"{path}: holds {twice!r}, and so does another shard")
        found |= held
    if (folder / INDEX).is_file() and not (folder / SINGLE).is_file():
        listed = _weight_map(folder / INDEX)
        for name in sorted(listed.keys() ^ found.keys()):
            where = f"{folder / listed[name]}: lacks" if name in listed else f"{folder / INDEX}: does not name"
            raise CheckpointError(f"{where} {name!r}, so shards and index are not of one model")
    if not found:
        raise CheckpointError(f"{folder}: its weight files hold no tensor")
    return found


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor → file, of an index whose files are all in its folder."""
    record = read_json(index)
    found = record.get("weight_map") if isinstance(record, dict) else None
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise CheckpointError(f"{index}: has no weight_map from tensors to files")
    for name in sorted(set(found.values())):
        if not re.fullmatch(r"[\w.-]+\.safetensors", name):
            raise CheckpointError(f"{index}: names {name!r}, which is not a safetensors file of this folder")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index.parent / name}: is missing: the index names it")
    return found


def check_whole(folder: Path) -> None:
    """Compare a folder's files with their hashes where somebody has said these: our manifest, or the names under which a hub's
    cache keeps its files. CheckpointError names the first that differs."""
    if (folder / MANIFEST).is_file():
        verify_manifest(folder)
        return
    for path in files(folder):
        told = path.resolve().name if path.is_symlink() else ""
        if re.fullmatch(r"[0-9a-f]{64}", told) and sha256(path) != told:
            raise CheckpointError(
                f"{path}: its content has changed since it was fetched (SHA-256 differs): fetch it again"
            )


def finite(state: Mapping[str, Tensor], folder: Path) -> None:
    """CheckpointError for a tensor with numbers that are not finite."""
    for name, value in state.items():
        if value.is_floating_point() and value.numel() and not bool(torch.isfinite(value.sum(dtype=torch.float64))):
            raise CheckpointError(f"{folder}: {name!r} holds numbers that are not finite")


def shards(state: Mapping[str, Tensor], largest: int = SHARD) -> tuple[dict[str, list[str]], dict[str, Any] | None]:
    """(file → its tensors, the index where there are several)."""
    groups: list[list[str]] = [[]]
    size = 0
    for name, value in state.items():
        if groups[-1] and size + value.nbytes > largest:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += value.nbytes
    if len(groups) == 1:
        return {SINGLE: groups[0]}, None
    named = {f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors": names for i, names in enumerate(groups)}
    weight_map = {name: file for file, names in named.items() for name in names}
    total = sum(value.nbytes for value in state.values())
    return named, {"metadata": {"total_size": total}, "weight_map": weight_map}


def index_json(index: Mapping[str, Any]) -> str:
    return json.dumps(index, indent=1) + "\n"
