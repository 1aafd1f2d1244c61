"""A model of ours as a folder in the published layout: `transformers` loads it, and finds every tensor in its place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sevenfold.assembly.adapter import merged
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.core.files import publish_folder, write_atomic
from sevenfold.exchange.origin import PROCESSORS, family_of
from sevenfold.exchange.passport import Passport, mapped
from sevenfold.exchange.weights import INDEX, SHARD, index_json, shards
from sevenfold.family import Family, state_of

FREE = {"dropout", "frozen"}
"""Settings of a wiring that change no trained model's numbers."""


def publish(model: Model, folder: str | Path, *, objective: nn.Module | None = None, largest: int = SHARD) -> Passport:
    """Write a model in the layout of its family, into a folder that is not there yet (or empty); returns the passport.

    objective  where a part of the published weights is held by an objective that was trained on (MAE's mask token, a scale)
    largest    bytes of one weights file; more are written in shards with an index

    Raises ConfigError for a model of no family, or one that is not wired as its family any more.
    """
    final = Path(folder)
    check_free(final)
    family, record, state = written(model, objective)
    held, index = shards(state, largest)

    def fill(inside: Path) -> list[str]:
        names = []
        for name, tensors in held.items():
            save_file({key: _own(state[key]) for key in tensors}, inside / name, {"format": "pt"})
            names.append(name)
        if index is not None:
            write_atomic(inside / INDEX, index_json(index))
            names.append(INDEX)
        for name, content in _records(model, family, record).items():
            write_atomic(inside / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
            names.append(name)
        for modality in model.modalities.values():
            names += modality.tokenizer.write_published(inside)
        write_atomic(inside / "README.md", _card(record, family, final.name))
        return [*dict.fromkeys(names), "README.md"]

    put(final, fill)
    extra = tuple(f"heads.{name}" for name in extra_heads(family.model(), model.config))
    passport = mapped(family, final, record, state, model)._replace(unpublished=extra)
    passport.write(final)  # not in the manifest: `convert --verify` adds to it
    return passport


def check_free(final: Path) -> None:
    """ConfigError for a place where a new folder cannot stand."""
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise ConfigError(f"{final}: is there already, and not empty: name a folder that is not there yet")


def put(final: Path, fill: Callable[[Path], Iterable[str]]) -> None:
    """A new folder that is whole or not there: `fill(inside)` writes its files and names them."""
    if final.is_dir():
        final.rmdir()
    try:
        publish_folder(final, fill)
    except OSError as error:
        raise CheckpointError(f"{final}: cannot be written: {error}") from None


def written(model: Model, objective: nn.Module | None = None) -> tuple[Family, dict[str, Any], dict[str, Tensor]]:
    """(its family, the published record as it is now, published tensors) of a model. ConfigError as in `publish`."""
    model = merged(model)
    record = model.published
    if not record:
        raise ConfigError(
            "this model is of no published family, so other tools have no place for its weights: begin from one (`start:` or "
            "`family:` in a recipe)"
        )
    family = family_of(record["config"], record.get("preprocessor"))
    wanted, own = family.model(), model.config
    _same_wiring(wanted, own)
    extra = extra_heads(wanted, own)
    state = {
        name: value
        for name, value in state_of(model, objective).items()
        if not any(name.startswith(f"heads.{head}.") for head in extra)
    }
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    now = _over(record["config"], family.published())
    now |= {key: dtype for key in ("dtype", "torch_dtype") if key in now} or {"dtype": dtype}
    return family, {**record, "config": now}, family.to_published(state)


def extra_heads(wanted: ModelConfig, own: ModelConfig) -> list[str]:
    """Heads that a model has beside its family's: what an objective added."""
    return sorted(own.heads.keys() - wanted.heads.keys())


def _same_wiring(wanted: ModelConfig, own: ModelConfig) -> None:
    """ConfigError names the first setting in which a model differs from its family's."""
    for field in ("trunks", "heads"):
        first, second = (part.encode(getattr(config, field)) for config in (wanted, own))
        where = _differs(first, {name: value for name, value in second.items() if name in first}, field)
        if where is not None:
            raise ConfigError(
                f"{where}: differs from what the published family has there, so it cannot be published as that"
            )
        if field == "trunks" and second.keys() - first.keys():
            raise ConfigError(f"trunks.{min(second.keys() - first.keys())}: the published family has no such trunk")


def _differs(first: Any, second: Any, place: str) -> str | None:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for name in [*first, *(key for key in second if key not in first)]:
            if name not in FREE:
                found = _differs(first.get(name), second.get(name), f"{place}.{name}")
                if found is not None:
                    return found
        return None
    if isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        each = (_differs(one, other, f"{place}.{i}") for i, (one, other) in enumerate(zip(first, second)))
        return next((found for found in each if found is not None), None)
    return None if first == second else place


def _over(config: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """A published config with what our family says in it: ids of special tokens and the like are left as they are."""
    inner = {key: _over(config[key], value) for key, value in ours.items() if isinstance(config.get(key), Mapping)}
    return {**config, **ours, **inner}


def _records(model: Model, family: Family, record: Mapping[str, Any]) -> dict[str, Any]:
    """File name → its content as plain data."""
    found = {"config.json": record["config"]}
    if record.get("generation"):
        found["generation_config.json"] = record["generation"]
    preprocessor = family.preprocessor_published(model)
    if preprocessor:
        found["preprocessor_config.json"] = preprocessor
    if record.get("processor"):
        inner = {name: preprocessor for name in PROCESSORS if record["processor"].get(name) is not None}
        found["processor_config.json"] = {**record["processor"], **(inner if preprocessor else {})}
    return found


def _own(tensor: Tensor) -> Tensor:
    """A tensor that shares memory with no other, as safetensors wants it."""
    tensor = tensor.detach().cpu()
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)


def _card(record: Mapping[str, Any], family: Family, name: str) -> str:
    """The model card: front matter that hubs read, and how to load it."""
    front = ["---", "library_name: transformers"]
    if record.get("licence"):
        front.append(f"license: {record['licence']}")
    if re_id(record["origin"]):
        front.append(f"base_model: {record['origin']}")
    architecture = (record["config"].get("architectures") or ["AutoModel"])[0]
    return "\n".join([
        *front, "---", "", f"# {name}", "",
        f"A model of the family {family.kind} ({record['config'].get('model_type')}), made from {record['origin']} and published by "
        "sevenfold. `passport.json` says which tensor is which, with hashes.", "",
        "```python", f"from transformers import {architecture}", f"model = {architecture}.from_pretrained({name!r})", "```", "",
    ])  # fmt: skip


def re_id(origin: Any) -> bool:
    """Whether an origin is the id of a published model."""
    return isinstance(origin, str) and origin.count("/") == 1 and not origin.startswith((".", "/"))
