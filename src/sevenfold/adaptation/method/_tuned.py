"""What methods that train a head on a model by gradient share: a recipe that begins from it, trained in the one loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from sevenfold.adaptation._task import names_of, supervised
from sevenfold.adaptation.method import Asked, Found, Method
from sevenfold.core.files import read_json
from sevenfold.training.finish import RESULTS
from sevenfold.training.recipe import Recipe
from sevenfold.training.run import Run, train


class Tuned(Method):
    """A recipe with the objective `supervised`, `start` the model that is adapted."""

    class Config(Method.Config):
        trunk: str | None = None
        """The trunk that is read; by default the one that reads the data."""
        pool: Literal["mean", "class", "last", "class_mean"] = "mean"
        """How its tokens become one vector. A class token is worth reading where the model learned by it (dinov2, a classifier)."""

    example = {"target": "label", "set": ("train.steps=2",)}
    rate: ClassVar[float] = 1e-3
    """AdamW's learning rate, where nobody says another (`train.optimizer.lr`)."""

    def changed(self, recipe: Recipe, asked: Asked) -> Mapping[str, Any]:
        """Fields of the recipe that this method changes."""
        return {}

    def run(self, asked: Asked) -> Found:
        settings = {
            "steps": 300, "batch": 32, "optimizer": {"kind": "adamw", "lr": self.rate, "weight_decay": 0.05},
            "schedule": {"kind": "cosine", "warmup": 0.1},
        }  # fmt: skip
        recipe = supervised(asked, self.config.trunk, self.config.pool, settings)
        recipe = recipe.replace(**self.changed(recipe, asked))
        done = train(recipe, asked.folder, say=asked.say)
        self.after(done, asked)
        results = read_json(asked.folder / RESULTS)
        figures = {"this model": results["held_out"], **results["baselines"]}
        learned = sum(p.numel() for name, p in done.model.named_parameters() if p.requires_grad)
        more = {"trained_parameters": learned, "parameters": results["parameters"], "steps": recipe.train.steps}
        return Found(figures, _held_out(done), more)

    def after(self, done: Run, asked: Asked) -> None:
        """What is left to do when the run has ended."""

    def lines(self, found: Found) -> list[str]:
        more = found.more
        share = more["trained_parameters"] / max(more["parameters"], 1)
        return [
            f"{more['trained_parameters']:,} of {more['parameters']:,} parameters were trained ({share:.1%}), {more['steps']} steps."
        ]


def _held_out(done: Run) -> int:
    return len(done.recipe.data.build().split()[1])


def head_of(recipe: Recipe) -> str:
    """The pattern of the parameters of the new head."""
    return f"heads.{names_of(recipe)[1]}.*"
