"""What is asked of a model: which field of the data, from which trunk; and the recipe that begins there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sevenfold.adaptation.method import Asked
from sevenfold.assembly.model import ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import BadSample, ConfigError, DataError, did_you_mean
from sevenfold.core.rooms import kinds
from sevenfold.data.recognise import recognise
from sevenfold.data.source import Source
from sevenfold.training.prepare import field_of
from sevenfold.training.recipe import Recipe, read_recipe
from sevenfold.training.wiring import wiring_of

TARGETS = ("label", "number", "labels", "token_labels")
"""Kinds of fields that can be predicted."""


def data_of(data: str | Path | Mapping[str, Any] | Source.Config, run: str = "", target: str | None = None) -> Any:
    """The Config of what is meant: a file or folder (read as the run's own data were, if they are of the same kind and that
    reads the field `target`), the kind of a source that needs no file (`digits`), or settings. DataError as `recognise`."""
    if isinstance(data, Source.Config):
        return data
    if isinstance(data, Mapping):
        return part.decode(Source.Config, dict(data), "data")
    if not Path(data).expanduser().exists() and str(data) in kinds("source"):
        return part.find("source", str(data)).Config()
    found = recognise(data)
    if run and (Path(run) / "recipe.yaml").is_file():
        own = read_recipe(run).data
        if own.kind == found.kind:
            same = own.replace(path=str(data), limit=None)
            reads = target is None or target in same.build().fields or target not in found.build().fields
            return same if reads else found  # the run's own settings may name some fields only
    return found


def target_of(source: Source, target: str | None, wiring: ModelConfig) -> tuple[str, str]:
    """(the field to predict, its kind). ConfigError for one that is not there or cannot be predicted."""
    read = {name for trunk in wiring.trunks.values() for name in trunk.inputs}
    fields = source.fields
    can = [name for name, kind in fields.items() if kind in TARGETS and name not in read]
    if target is None:
        if len(can) != 1:
            raise ConfigError(
                f"target: say which field is to be predicted: {', '.join(can) or 'the data has no labels'}"
            )
        return can[0], fields[can[0]]
    if target not in fields:
        raise ConfigError(f"target: {source.no_field(target)}")
    return target, fields[target] if fields[target] in TARGETS else "label"


def upstream(wiring: ModelConfig, trunk: str) -> list[str]:
    """A trunk and all those that it reads, in order."""
    needed, todo = set(), [trunk]
    while todo:
        name = todo.pop()
        needed.add(name)
        config = wiring.trunks[name]
        todo += [given for given in (*config.inputs, config.cross_attends) if given in wiring.trunks]
    return [name for name in wiring.trunks if name in needed]


def trunk_for(wiring: ModelConfig, fields: Mapping[str, str], named: str | None, field: str = "trunk") -> str:
    """The trunk whose tokens are read: the named one, or the only one that reads the data and that no other such trunk reads."""
    if named is not None:
        if named not in wiring.trunks:
            raise ConfigError(f"{field}: there is no {named!r}{did_you_mean(named, wiring.trunks)}")
        return named
    there = {name for name, stream in wiring.streams.items() if _has(name, stream, fields)}
    found = [name for name, trunk in wiring.trunks.items() if any(given in there for given in trunk.inputs)]
    found = [name for name in found if not any(name in upstream(wiring, other)[:-1] for other in found)]
    if len(found) != 1:
        what = f"say which of {found}: --set trunk=…" if found else f"the data has only {', '.join(fields)}"
        raise ConfigError(f"{field}: the model reads {', '.join(wiring.streams)}: {what}")
    return found[0]


def _has(name: str, stream: Any, fields: Mapping[str, str]) -> bool:
    try:
        field_of(name, stream, dict(fields))
    except ConfigError:
        return False
    return True


def reduced(wiring: ModelConfig, trunk: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(streams, trunks) that a trunk needs, as plain data; items one by one."""
    names = upstream(wiring, trunk)
    trunks = {name: wiring.trunks[name] for name in names}
    read = {given for config in trunks.values() for given in (*config.inputs, config.condition)}
    streams = {name: stream for name, stream in wiring.streams.items() if name in read}
    if not streams:
        raise ConfigError(f"trunk: {trunk!r} reads no stream")
    alone = {name: part.encode(stream.replace(pack=False)) for name, stream in streams.items()}
    return alone, {name: part.encode(config) for name, config in trunks.items()}


def supervised(
    asked: Asked, trunk: str | None, pool: str, train: Mapping[str, Any], changes: Mapping[str, Any] | None = None
) -> Recipe:  # fmt: skip
    """The recipe of a new head on one trunk of a model, for the target. `changes` are further fields of the recipe."""
    wiring, source = wiring_of(asked.run), asked.data.build()
    target, kind = target_of(source, asked.target, wiring)
    trunk = trunk_for(wiring, source.fields, trunk)
    streams, trunks = reduced(wiring, trunk)
    if target in streams:
        raise ConfigError(f"target: {target!r} is what the model reads, so it cannot be predicted from it")
    check_target(source, target)
    name = f"new_{target}" if target in wiring.streams else target
    streams[name] = {"kind": kind, "field": target}
    recipe = {
        "data": part.encode(asked.data),
        "start": asked.run,
        "streams": streams,
        "trunks": trunks,
        "heads": {},
        "init": part.encode(wiring.init),
        "objective": {"kind": "supervised", "target": name, "trunk": trunk, "pool": pool},
        "train": dict(train),
        **(changes or {}),
    }
    return read_recipe(recipe, asked.changes)


def names_of(recipe: Recipe) -> tuple[str, str, str]:
    """(trunk, target stream, pool) of such a recipe."""
    objective: Any = recipe.objective
    return objective.trunk, objective.target, objective.pool


def check_target(source: Source, target: str) -> None:
    """DataError for a target that no training sample has, or all have alike."""
    first: Any = None
    for index in source.split()[0]:
        try:
            found = source[index].get(target)
        except BadSample:
            continue
        if found is None:
            continue
        if first is None:
            first = found
        elif repr(found) != repr(first):
            return
    if first is None:
        raise DataError(f"target: no training sample has a {target!r}")
    raise DataError(
        f"target: all training samples have the same {target!r}, {str(first)!r}: there is nothing to tell apart"
    )


def check_single(modality: Any, field: str, method: str) -> None:
    """ConfigError for labels of tokens, where a method answers for whole samples."""
    if modality.tokenizer.axes:
        raise ConfigError(
            f"{method}: {field!r} has a label for every token, and it answers for whole samples: choose probe, lora …"
        )
