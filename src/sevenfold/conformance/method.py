"""What every way to adapt must do: see the contract in sevenfold.adaptation.method. Tried on tiny runs over digits."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sevenfold.adaptation.adapt import Adapted, adapt
from sevenfold.conformance._kit import empty_folder, expect, refusal
from sevenfold.core.errors import SevenfoldError
from sevenfold.core.part import encode, find
from sevenfold.training.load import load
from sevenfold.training.run import train

SAMPLES = "data.limit=80"
FIGURES: dict[str, Any] = {}
"""What each config has given here already."""


@cache
def begun(objective: str) -> tuple[TemporaryDirectory, Path]:
    """A run of the example of an objective, of two steps. The folder goes when the process does."""
    recipe = find("objective", objective).example()
    recipe["train"] = {"steps": 2, "batch": 16, **recipe.get("train", {})}
    folder = TemporaryDirectory()
    place = Path(folder.name) / "run"
    train(recipe, place, say=lambda _: None, bar=False)
    return folder, place


def made(config: Any, folder: Path) -> Adapted:
    """The method on digits, by its example."""
    example = config.part.example
    start = begun(example.get("start", "mae"))[1]
    return adapt(
        start, "digits", config, target=example.get("target"), out=folder, settings=[SAMPLES, *example.get("set", ())], say=lambda _: None
    )  # fmt: skip


def check_folder(config: Any) -> None:
    """It leaves a folder that `load` reads, with a card that shows the figures beside what is compared with it."""
    with empty_folder() as place:
        done = made(config, place / "out")
        FIGURES[_key(config)] = done.figures
        load(done.folder)
        told = (done.folder / "README.md").read_text(encoding="utf-8")
        expect("this model" in done.figures and len(done.figures) > 1, f"figures of {list(done.figures)} alone")
        expect(all(f"| {name} |" in told for name in done.figures), "the card leaves figures out")
        values = [value for found in done.figures.values() for value in found.values()]
        expect(values and all(math.isfinite(value) for value in values), "a figure is not finite")
        expect(done.record["samples"] > 0, "over no samples")


def check_repeatable(config: Any) -> None:
    """The same again gives the same figures."""
    with empty_folder() as place:
        first = FIGURES.get(_key(config)) or made(config, place / "one").figures
        expect(made(config, place / "two").figures == first, "the same again gives other figures")


def _key(config: Any) -> str:
    return json.dumps(encode(config), sort_keys=True)


def check_place(config: Any) -> None:
    """A folder that is not empty is left alone, with one line."""
    with empty_folder() as place:
        (place / "mine.txt").write_text("mine")
        told = refusal(lambda: made(config, place), SevenfoldError)
        expect(str(place) in told, f"the error does not name the place: {told}")
        expect([file.name for file in place.iterdir()] == ["mine.txt"], "something was written")
