"""A linear read-out of frozen representations, found in closed form or by convex optimisation; it becomes the model's head.

    classes  softmax(W z + b), logistic regression        numbers  W z + b, ridge        labels  one sigmoid each

z is the pooled output of one trunk. Strengths of L2 are tried on a held-out fifth of the training samples (see
sevenfold.adaptation.readout). Alain and Bengio 2016, arXiv:1610.01644; as the measure of representations, Chen 2020,
arXiv:2002.05709.
"""

from __future__ import annotations

import time
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from sevenfold.adaptation._features import features, remarks, simple, task_of
from sevenfold.adaptation._task import names_of, supervised
from sevenfold.adaptation.method import Asked, Found, Method
from sevenfold.adaptation.readout import STRENGTHS, Readout, probe
from sevenfold.assembly.model import Model
from sevenfold.core.errors import DataError
from sevenfold.training.prepare import prepare
from sevenfold.training.run import settled


class Probe(Method):
    class Config(Method.Config):
        trunk: str | None = None
        """The trunk that is read; by default the one that reads the data."""
        pool: Literal["mean", "class", "last", "class_mean"] = "mean"
        """How its tokens become one vector. A class token is worth reading where the model learned by it (dinov2, a classifier)."""
        scaling: Literal["each", "one"] = "each"
        """Every feature to a standard deviation of 1, or all by one number."""
        strengths: tuple[float, ...] = Field(STRENGTHS, min_length=1)
        """Inverse strengths of L2 that are tried."""

    example = {"target": "label"}

    def run(self, asked: Asked) -> Found:
        began = time.perf_counter()
        recipe = supervised(asked, self.config.trunk, self.config.pool, {"steps": 1})
        ready = prepare(recipe, note=asked.say)
        target = names_of(ready.recipe)[1]
        found = features(ready.model, ready.train_items, target)
        if not len(found.y):
            raise DataError(f"target: no training sample has a {ready.fields[target]!r}")
        for line in remarks(found, ready.model, target):
            asked.say(line)
        task = task_of(ready.model, target)
        seed = ready.recipe.seed
        read = probe(found.x, found.y, task, scaling=self.config.scaling, strengths=self.config.strengths, seed=seed)
        into_head(read, ready.model, target)
        results = settled(recipe, ready, asked.folder, began)
        figures = {"this model": results["held_out"], **results["baselines"]}
        if task == "numbers":
            held = features(ready.model, ready.held_out_items, target)
            figures |= simple(task, found.y, held.y)
        more = {"strength": read.settings["strength"], "tried": read.settings["tried"], "trained_on": len(found.y)}
        return Found(figures, len(ready.held_out_items), more)

    def lines(self, found: Found) -> list[str]:
        return [
            f"Read out on {found.more['trained_on']:,} samples, with an inverse strength of L2 of {found.more['strength']:g}."
        ]


@torch.no_grad()
def into_head(read: Readout, model: Model, target: str) -> None:
    """A read-out as the weights of the linear head of a stream; classes that it has not seen are never said."""
    layer: Any = model.heads[target].projection
    weight, bias = np.zeros(tuple(layer.weight.shape)), np.full(len(layer.bias), -1e4)
    rows = np.arange(len(read.bias)) if read.classes is None else read.classes.astype(np.int64)
    weight[rows], bias[rows] = read.weight, read.bias
    layer.weight.copy_(torch.from_numpy(weight))
    layer.bias.copy_(torch.from_numpy(bias))
