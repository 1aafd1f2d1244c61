"""What a recipe need not say because it begins from something: `start`, another model, or `family`, a published architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sevenfold.assembly.model import ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.core.files import read_json
from sevenfold.exchange.hub import folder_of
from sevenfold.exchange.load import wiring
from sevenfold.exchange.origin import family_of, is_published, record_of
from sevenfold.family import Family

FIELDS = ("streams", "trunks", "heads", "init")


def wiring_of(start: str) -> ModelConfig:
    """The wiring of a run folder or a published model; weights are not read."""
    folder = folder_of(start)
    if is_published(folder):
        record = record_of(folder)
        return wiring(family_of(record["config"], record["preprocessor"], str(folder / "config.json")), folder)
    data = read_json(folder / "config.json")
    if not isinstance(data, dict) or "sevenfold" not in data:
        raise CheckpointError(f"{folder}: is neither a run folder nor a published model: its config.json is of neither")
    return part.decode(ModelConfig, data["sevenfold"], str(folder / "config.json"))


def filled(data: dict[str, Any], where: str = "") -> dict[str, Any]:
    """A recipe's plain data with streams, trunks and heads of its `start` or `family`, changed as it says."""
    start, family = data.get("start"), data.get("family")
    if (start is None and family is None) or data.get("trunks") and all(_whole(data, field) for field in FIELDS):
        return data
    if start is not None and family is not None:
        raise ConfigError(
            f"{where}: start: it has a family already: leave `family` out" if where else "start and family: give one"
        )
    if start is not None:
        if not isinstance(start, str):
            raise ConfigError(f"{where}: start: the name of a folder or the id of a model, not {start!r}")
        made = wiring_of(start)
    else:
        config = part.decode(_Only, {"family": family}, where).family
        assert config is not None
        made = wiring(config.build())
    base = part.encode(made)
    return {**data, **{field: merged(base[field], data.get(field)) for field in FIELDS}}


class _Only(part.Config):
    """The one field, for an error with its path."""

    family: Family.Config | None = None


def _whole(data: Mapping[str, Any], field: str) -> bool:
    """Whether a recipe has a field with every setting written out, as the recipe of a run folder has."""
    given = data.get(field)
    if field == "trunks":
        return isinstance(given, dict) and all(
            isinstance(t, dict) and "frozen" in t and "pair" in t for t in given.values()
        )
    return given is not None


def merged(base: Any, given: Any) -> Any:
    """Plain data with what is given in place; another `kind` takes nothing over of the old one's settings."""
    if given is None:
        return base
    if not isinstance(base, dict) or not isinstance(given, dict):
        if isinstance(base, dict) and isinstance(given, str) and base.get("kind") == given:
            return base
        return given
    if "kind" in given and given["kind"] != base.get("kind", given["kind"]):
        return given
    return {**base, **{name: merged(base.get(name), value) for name, value in given.items()}}
