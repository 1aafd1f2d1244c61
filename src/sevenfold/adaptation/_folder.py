"""Folders that methods leave where no run was trained: a model, what reads it out, a card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from sevenfold.assembly.model import Model
from sevenfold.core import part
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.core.files import read_json, write_atomic
from sevenfold.core.version import __version__
from sevenfold.exchange.origin import save_luggage
from sevenfold.exchange.publish import put
from sevenfold.training import checkpoint
from sevenfold.training.load import config_json, tokenizer_folder

RECORD = "adaptation.json"
MEMORY = "memory.safetensors"
"""What a method keeps beside the model: representations, targets, vectors of classes."""


def write_model(model: Model, folder: Path, memory: Mapping[str, np.ndarray]) -> None:
    """A folder that `load` reads, with a memory beside the model; whole or not there."""

    def fill(inside: Path) -> list[str]:
        write_atomic(inside / "config.json", config_json(model))
        save_file(checkpoint.contiguous(model.state_dict()), inside / "model.safetensors", {"format": "pt"})
        kept = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in memory.items()}
        save_file(kept, inside / MEMORY)
        names = ["config.json", "model.safetensors", MEMORY, *save_luggage(model, inside)]
        for name, modality in model.modalities.items():
            within = tokenizer_folder(inside, name, len(model.modalities))
            names += [str((within / file).relative_to(inside)) for file in modality.save(within)]
        return names

    put(folder, fill)


def memory_of(folder: Path) -> dict[str, np.ndarray]:
    """What `write_model` kept beside the model."""
    return {name: value.numpy() for name, value in checkpoint.tensors(folder / MEMORY).items()}


def record_of(folder: Path) -> dict[str, Any] | None:
    """adaptation.json of a folder, if it has one."""
    if not (folder / RECORD).is_file():
        return None
    found = read_json(folder / RECORD)
    if not isinstance(found, dict) or not isinstance(found.get("method"), dict):
        raise CheckpointError(f"{folder / RECORD}: is not the record of an adaptation")
    return found


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    write_atomic(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def check_new(folder: Path) -> None:
    """ConfigError for a place where a new folder cannot stand."""
    if folder.is_file():
        raise ConfigError(f"{folder}: is a file, not a folder for the result")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: is not empty: choose another --out")


def card(folder: Path, record: Mapping[str, Any], lines: list[str]) -> str:
    """README.md: what was done to what, and the figures."""
    figures: dict[str, dict[str, float]] = record["figures"]
    terms = list(dict.fromkeys(term for found in figures.values() for term in found if term != "loss"))
    rows = [
        f"| {name} | " + " | ".join("" if term not in found else f"{found[term]:.4f}" for term in terms) + " |"
        for name, found in figures.items()
    ]
    method = record["method"]
    settings = ", ".join(
        f"{name} {value}" for name, value in method.items() if name != "kind" and value not in (None, [], ())
    )
    return "\n".join([
        "---", "library_name: sevenfold", f"tags: [sevenfold, adapted, {method['kind']}]", "---", "",
        f"# {folder.name}", "",
        f"`{record['run']}`, adapted by `{method['kind']}` to {record['target'] or 'data'} of `{record['data']}`.", "",
        "## Figures", "",
        "| held out | " + " | ".join(terms) + " |", "|---|" + "---|" * len(terms), *rows, "",
        f"{record['samples']:,} held-out samples, from which nothing was learned or chosen.", *([""] if lines else []), *lines, "",
        "## How it was made", "",
        f"- `{record['command']}`", f"- Settings: {settings or 'none'}", f"- sevenfold {__version__}, {record['seconds']:.1f} s", "",
        "## Use", "", "```python", "import sevenfold as sf", "", f"model = sf.load({str(folder)!r})", "```", "",
        "The data's licence and whatever the data holds of bias or private facts carry over to this model.", "",
    ])  # fmt: skip


def encoded(config: Any) -> dict[str, Any]:
    """A method's config as plain data."""
    return part.encode(config)
