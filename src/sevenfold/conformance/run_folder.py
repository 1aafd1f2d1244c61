"""What every run folder must be: whole, readable, and the same model every time it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sevenfold.conformance._kit import Skipped, expect
from sevenfold.core.errors import BadSample, DataError
from sevenfold.core.files import MANIFEST, verify_manifest
from sevenfold.core.part import decode, encode
from sevenfold.training.load import load, verified
from sevenfold.training.prepare import field_of
from sevenfold.training.recipe import Recipe, read_recipe


def check_whole(run: Path) -> None:
    """Every file is there as it was written."""
    verified(run)
    if not (run / MANIFEST).is_file():
        raise Skipped("the run has not ended: only its newest checkpoint was verified")
    verify_manifest(run)


def check_recipe(run: Path) -> None:
    """recipe.yaml decodes, is complete, and describes the model that is there."""
    recipe = read_recipe(run)
    expect(decode(Recipe, encode(recipe)) == recipe, "recipe.yaml does not survive decode and encode")
    config = load(run).config
    for name in ("streams", "trunks", "heads"):
        expect(getattr(recipe, name) == getattr(config, name), f"recipe.yaml and config.json differ in {name}")


def check_loads(run: Path) -> None:
    """It loads, twice the same, with finite weights."""
    first, second = load(run).state_dict(), load(run).state_dict()
    for name, value in first.items():
        expect(value.isfinite().all(), f"{name} is not finite")
        expect(value.equal(second[name]), f"{name} differs when loaded again")


def check_embeds(run: Path) -> None:
    """The same items give the same vectors, after loading again and whatever stands beside them in the batch."""
    model, items = load(run), samples(run)
    first, again = model.embed(items), load(run).embed(items)
    expect(np.isfinite(first).all(), "a vector is not finite")
    expect(np.array_equal(first, again), "the same items give other vectors")
    alone = np.concatenate([model.embed([item]) for item in items])
    error = float(np.abs(alone - first).max() / max(1.0, np.abs(first).max()))
    expect(error < 1e-4, f"an item on its own gives another vector than in a batch (off by {error:.1e})")


def samples(run: Path, count: int = 4) -> list[Any]:
    """A few raw items: of the run's own data, or examples of its modalities."""
    recipe, model = read_recipe(run), load(run)
    read = {name for trunk in recipe.trunks.values() for name in trunk.inputs if name in recipe.streams}
    try:
        source = recipe.data.build()
        fields = {name: field_of(name, recipe.streams[name], source.fields) for name in read}
        rows = [source[index] for index in range(min(count, len(source)))]
        return [{name: row.get(field) for name, field in fields.items()} for row in rows]
    except (BadSample, DataError):
        pass
    examples = {name: recipe.streams[name].part.example(0)[:count] for name in read}
    items = [{name: raws[row] for name, raws in examples.items()} for row in range(count)]
    try:
        model.tokenize(items)
    except (DataError, ValueError) as error:
        raise Skipped(f"its data is not there, and it takes no example: {error}") from None
    return items
