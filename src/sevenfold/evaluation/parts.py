"""Which items are learned from and which are tested on. Nothing is ever chosen on the test part.

the test part that a field of the run's data names (data.split), or else other data that are given, or else the held-out part
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sevenfold.adaptation._task import data_of
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.files import read_json
from sevenfold.core.part import encode
from sevenfold.data.source import Source
from sevenfold.training.finish import BEGUN
from sevenfold.training.load import located
from sevenfold.training.recipe import Recipe, read_recipe
from sevenfold.training.run import data_hash

Data = str | Path | Mapping[str, Any] | Source.Config
"""A file or folder, the kind of a source that needs none, or a source's settings."""


class Parts(NamedTuple):
    """Indices to learn from, to validate on (where there are others than to test on) and to test on, each of a source."""

    source: Source
    train: list[int]
    valid: list[int]
    tested: Source
    test: list[int]
    told: str


def recipe_of(run: str | Path) -> Recipe | None:
    """The recipe of a run; None: it is none of ours."""
    folder = located(run)
    return read_recipe(folder) if (folder / "recipe.yaml").is_file() else None


def one_recipe(runs: list[str]) -> Recipe | None:
    """The recipe that several runs have in common; ConfigError if they differ in more than the seed."""
    recipes = [recipe_of(run) for run in runs]
    first = recipes[0]
    if len(runs) > 1 and any(recipe is None for recipe in recipes):
        raise ConfigError(
            "several models are taken as seeds of one recipe, and a published one has none: evaluate it alone"
        )
    for place, (run, recipe) in enumerate(zip(runs, recipes)):
        if first is None or recipe is None or not place:
            continue
        differs = difference(encode(first.replace(seed=0)), encode(recipe.replace(seed=0)))
        if differs is not None:
            raise ConfigError(f"{run}: is no other seed of {runs[0]}: they differ in {differs}")
        if recipe.seed in [other.seed for other in recipes[:place] if other is not None]:
            raise ConfigError(f"{run}: has the seed {recipe.seed}, as another of the runs: train it with another seed")
    return first


def difference(one: object, other: object, path: str = "") -> str | None:
    """The first dotted path at which plain data differ; None: nowhere."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in [*one, *(name for name in other if name not in one)]:
            if name not in one or name not in other:
                return f"{path}{name}"
            found = difference(one[name], other[name], f"{path}{name}.")
            if found is not None:
                return found
        return None
    return None if one == other else path.rstrip(".")


def settings_for(run: str, data: Data, split: str | None, target: str | None = None) -> Source.Config:
    """How to read other data: as the run's own were read, if they are of the same kind."""
    found = data_of(data, run, target)
    return found if split is None else found.replace(split=split)


def named(settings: Source.Config) -> str:
    return settings.path or f"the {settings.kind}"


def unchanged(recipe: Recipe, source: Source, folder: Path) -> None:
    """DataError if the data are no longer those that a run was trained on."""
    if data_hash(source) != read_json(folder / BEGUN).get("data"):
        raise DataError(
            f"{named(recipe.data)}: has changed since {folder} was trained, so the figures would not compare"
        )


def parts(runs: list[str], recipe: Recipe | None, data: Data | None, split: str | None, target: str) -> Parts:
    """Where a read-out learns and where it is tested."""
    own = None if recipe is None else recipe.data.build()
    if data is None:
        if own is None or recipe is None:
            raise ConfigError(
                f"{runs[0]}: keeps no data to evaluate on: name a file or folder (sevenfold evaluate {runs[0]} DATA)"
            )
        unchanged(recipe, own, located(runs[0]))
        return _apart(own)
    other = settings_for(runs[0], data, split, target).build()
    if own is not None and target in own.fields and split is None:
        same = data_hash(own) == data_hash(other)
        if not same:
            train, valid = map(list, own.split())
            return Parts(own, train, valid, other, list(range(len(other))), f"all of {named(other.config)}")
    return _apart(other)


def _apart(source: Source) -> Parts:
    train, held_out = map(list, source.split())
    test = source.test()
    if test:
        return Parts(source, train, held_out, source, test, f"the test part of {named(source.config)}")
    return Parts(source, train, [], source, held_out, f"the held-out part of {named(source.config)}")
