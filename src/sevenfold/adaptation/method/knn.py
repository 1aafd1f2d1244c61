"""Nearest neighbours on frozen representations: no training at all.

    p(c | z) ~ sum over the k nearest z_i of class c of exp(cos(z, z_i) / T)

Wu 2018, arXiv:1805.01978 section 3.4; k and T of DINO, Caron 2021, arXiv:2104.14294. The folder holds the model and the memory:
one vector a training sample.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from sevenfold.adaptation._features import features, remarks, scored, simple, task_of
from sevenfold.adaptation._folder import write_model
from sevenfold.adaptation._task import check_single, names_of, supervised
from sevenfold.adaptation.method import Asked, Found, Method
from sevenfold.adaptation.readout import Neighbours, knn
from sevenfold.assembly.model import Model
from sevenfold.core.errors import DataError
from sevenfold.training.finish import baselines
from sevenfold.training.prepare import prepare


class KNN(Method):
    class Config(Method.Config):
        trunk: str | None = None
        """The trunk that is read; by default the one that reads the data."""
        pool: Literal["mean", "class", "last", "class_mean"] = "mean"
        """How its tokens become one vector. A class token is worth reading where the model learned by it (dinov2, a classifier)."""
        k: int = Field(20, ge=1)
        """How many neighbours are asked."""
        temperature: float = Field(0.07, gt=0)
        """T: how much nearer ones count more."""

    example = {"target": "label"}

    def run(self, asked: Asked) -> Found:
        ready = prepare(supervised(asked, self.config.trunk, self.config.pool, {"steps": 1}), note=asked.say)
        trunk, target, how = names_of(ready.recipe)
        check_single(ready.model.modalities[target], ready.fields[target], "knn")
        found = features(ready.model, ready.train_items, target)
        held = features(ready.model, ready.held_out_items, target)
        if not len(found.y):
            raise DataError(f"target: no training sample has a {ready.fields[target]!r}")
        for line in remarks(found, ready.model, target):
            asked.say(line)
        task = task_of(ready.model, target)
        near = knn(found.x, found.y, task, k=self.config.k, temperature=self.config.temperature)
        figures = {"this model": scored(task, spread(near, ready.model, target, held.x), held.y)}
        figures |= simple(task, found.y, held.y)
        figures |= baselines(ready.objective, ready.train_items, ready.held_out_items, ready.batch)
        plain = Model(ready.model.config.replace(heads={}), ready.model.modalities)
        plain.load_state_dict({k: v for k, v in ready.model.state_dict().items() if not k.startswith("heads.")})
        plain.luggage, plain.published = ready.model.luggage, ready.model.published
        write_model(plain, asked.folder, {"vectors": near.memory.astype(np.float32), "targets": found.y})
        more = {"trunk": trunk, "stream": target, "pool": how, "trained_on": len(found.y), "unread": len(held.bad)}
        return Found(figures, len(held.y), more)


def spread(near: Neighbours, model: Model, target: str, x: np.ndarray) -> np.ndarray:
    """Scores with a column for every class of the stream, also of those that no neighbour has."""
    scores = near.scores(x)
    if near.classes is None:
        return scores
    every = np.zeros((len(scores), model.modalities[target].tokenizer.size or 0))
    every[:, near.classes.astype(np.int64)] = scores
    return every
