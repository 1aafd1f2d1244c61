"""Where a model came from, kept with it: the published record in its config, and its luggage in a file of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from sevenfold.assembly.model import Model
from sevenfold.core.errors import CheckpointError, ConfigError, did_you_mean
from sevenfold.core.files import read_json
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds
from sevenfold.exchange.weights import of_file
from sevenfold.family import Family

LUGGAGE = "luggage.safetensors"
PROCESSORS = ("feature_extractor", "image_processor")
"""Where a `processor_config.json` keeps what otherwise stands in `preprocessor_config.json`."""


def family_of(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None, where: str = "config"
) -> Family:
    """The family of a published config. ConfigError names an architecture that none reads, with the nearest that one does."""
    named = config.get("model_type")
    if not isinstance(named, str):
        raise ConfigError(f"{where}: says no model_type, so it is not a published model")
    known = {model_type: kind for kind in kinds("family") for model_type in find("family", kind).model_types()}
    if named not in known:
        raise ConfigError(f"{where}: no family here reads the architecture {named!r}{did_you_mean(named, known)}")
    try:
        return find("family", known[named]).read(config, preprocessor)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def record_of(folder: Path) -> dict[str, Any]:
    """The published record of a folder: its config, what stands beside it, its licence."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / 'config.json'}: is not the config of a model")
    named = config.get("architectures")
    if named is not None and not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise CheckpointError(f"{folder / 'config.json'}: architectures: a list of names, not {named!r}")
    record: dict[str, Any] = {"origin": folder.resolve().name, "config": config}
    for name in ("preprocessor", "generation"):
        record[name] = _beside(folder / f"{name}_config.json")
    path = folder / "processor_config.json"
    both = record["processor"] = _beside(path) or {}
    if record["preprocessor"] is None:
        record["preprocessor"] = next((both[part] for part in PROCESSORS if both.get(part) is not None), None)
        if not isinstance(record["preprocessor"], dict | None):
            raise CheckpointError(f"{path}: its processor is not a record of settings")
    record["licence"] = licence(folder)
    return record


def _beside(path: Path) -> dict[str, Any] | None:
    """The settings in a file beside the config, where there is one."""
    found = read_json(path) if path.is_file() else None
    if found is not None and not isinstance(found, dict):
        raise CheckpointError(f"{path}: is not a record of settings")
    return found


def recorded(config: Mapping[str, Any], origin: str = "scratch") -> dict[str, Any]:
    """The record of a model that was not read from a folder."""
    return {"origin": origin, "config": dict(config), "preprocessor": None, "generation": None, "licence": None}


def licence(folder: Path) -> str | None:
    """The licence that a folder's card names in its front matter."""
    card = folder / "README.md"
    if not card.is_file() or card.stat().st_size > 4 << 20:
        return None
    found = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    named = re.search(r"^licen[sc]e:\s*['\"]?([\w.+-]+)", found.group(1), re.MULTILINE) if found else None
    return named.group(1) if named else None


def is_published(folder: Path) -> bool:
    """Whether a folder is in the published layout, and not one of ours."""
    path = folder / "config.json"
    if not path.is_file() or (folder / "recipe.yaml").is_file():
        return False
    config = read_json(path)
    return isinstance(config, dict) and config.get("model_type") not in (None, "sevenfold")


def save_luggage(model: Model, folder: Path) -> list[str]:
    """Write what the model carries along; returns the names of files."""
    if not model.luggage:
        return []
    save_file({name: value.contiguous() for name, value in model.luggage.items()}, folder / LUGGAGE)
    return [LUGGAGE]


def restore_luggage(model: Model, folder: Path) -> None:
    """Read what the model carries along, if its folder holds any."""
    if (folder / LUGGAGE).is_file():
        model.luggage = of_file(folder / LUGGAGE)


def recall(model: Model, folder: Path) -> None:
    """Take over from a run folder what a model knows of where it came from."""
    data = read_json(folder / "config.json")
    published = data.get("published", {}) if isinstance(data, dict) else None
    if not isinstance(published, dict):
        raise CheckpointError(f"{folder / 'config.json'}: its published record is not one")
    model.published = published
    restore_luggage(model, folder)
