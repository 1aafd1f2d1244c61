"""Pretraining that goes on, on other data, by the model's own objective; a meter says what is forgotten of the old.

    forgotten = L_old(after) - L_old(before)                held-out loss on the data it learned from

Domain-adaptive pretraining: Gururangan 2020, arXiv:2004.10964. Forgetting: McCloskey and Cohen 1989,
doi:10.1016/S0079-7421(08)60536-8. A share of old samples (`replay`) keeps most of what was known: Robins 1995,
doi:10.1080/09540099550039318; for language models, Ibrahim 2024, arXiv:2403.08763.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sevenfold.adaptation._task import data_of
from sevenfold.adaptation.method import Asked, Found, Method
from sevenfold.core import part
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.files import read_json
from sevenfold.data.loader import Samples
from sevenfold.data.source import Source
from sevenfold.training.finish import RESULTS
from sevenfold.training.laid_out import laid_out
from sevenfold.training.look import evaluate
from sevenfold.training.prepare import Ready, field_of, items_of, prepare
from sevenfold.training.recipe import Recipe, read_recipe
from sevenfold.training.run import train
from sevenfold.training.start import going_on


class Continue(Method):
    class Config(Method.Config):
        old: str | None = None
        """The data that it learned from, as a file or folder; by default what the run's recipe names."""
        replay: float = Field(0.0, ge=0, lt=1)
        """The share of old samples among those that are trained on."""

    answers = False
    example = {"set": ("train.steps=2",)}
    variants = ({"replay": 0.25},)

    def run(self, asked: Asked) -> Found:
        old = self._old(asked)
        drafted = going_on(asked.run, asked.data)
        drafted["train"] = {**drafted["train"], "steps": 300}
        if self.config.replay:
            drafted["data"] = {
                "kind": "replay", "new": part.encode(asked.data), "old": part.encode(old), "share": self.config.replay,
                "held_out": asked.data.held_out,
            }  # fmt: skip
        recipe = read_recipe(drafted, asked.changes)
        meter: dict[int, dict[str, float]] = {}
        before = prepare(recipe)
        fresh = evaluate(before.objective, before.held_out, before.recipe.train, before.recipe.seed)
        meter[0] = self._measure(before, old)
        asked.say(f"before: held out, new {_told(fresh)}; old {_told(meter[0])}")

        def look(ready: Ready, step: int) -> None:
            meter[step] = self._measure(ready, old)
            asked.say(f"old data after step {step}: {_told(meter[step])}")

        done = train(recipe, asked.folder, say=asked.say, on_look=look)
        results = read_json(asked.folder / RESULTS)
        last = meter[max(meter)]
        figures = {
            "this model": results["held_out"], "before": fresh, "old data: this model": last, "old data: before": meter[0],
        }  # fmt: skip
        figures |= results["baselines"]
        more = {
            "meter": {str(step): terms for step, terms in meter.items()},
            "forgotten": last["loss"] - meter[0]["loss"],
            "gained": fresh["loss"] - results["held_out"]["loss"],
            "objective": done.recipe.objective.kind,
        }
        return Found(figures, len(before.held_out_items), more)

    def lines(self, found: Found) -> list[str]:
        new, old = (_moved(by) for by in (-found.more["gained"], found.more["forgotten"]))
        return [
            f"On the new data the loss {new}; on the old data it {old} (the forgetting meter; replay {self.config.replay:g})."
        ]

    def _old(self, asked: Asked) -> Source.Config:
        if self.config.old is not None:
            return data_of(self.config.old, asked.run)
        if not (Path(asked.run) / "recipe.yaml").is_file():
            raise ConfigError(
                f"continue: {asked.run} does not say what it learned from, so nothing tells what it forgets: name it with --set old=PATH"
            )
        own = read_recipe(asked.run).data
        try:
            own.build()
        except DataError as error:
            raise ConfigError(
                f"continue: the data that {asked.run} learned from cannot be read ({error}): name it with --set old=PATH"
            ) from None
        return own

    def _measure(self, ready: Ready, old: Source.Config) -> dict[str, float]:
        """The objective's terms on the held-out part of the old data, read as the recipe says."""
        return evaluate(ready.objective, held_out_of(ready, old), ready.recipe.train, ready.recipe.seed)


def held_out_of(ready: Ready, data: Source.Config) -> Samples:
    """The held-out samples of other data, laid out as those of a recipe."""
    recipe: Recipe = ready.recipe
    source, objective = data.build(), ready.objective
    modalities = ready.model.modalities
    fields = {
        name: field_of(name, config.replace(field=None), source.fields) for name, config in recipe.streams.items()
    }
    items = items_of(recipe, source, source.split()[1], modalities, fields, looks=objective.looks())
    return laid_out(recipe, items, ready.bad, modalities)


def _moved(by: float) -> str:
    return f"{'rose' if by > 0 else 'fell'} by {abs(by):.4f}"


def _told(terms: dict[str, float]) -> str:
    return f"loss {terms['loss']:.4f}" if "loss" in terms else "nothing that can be read"
