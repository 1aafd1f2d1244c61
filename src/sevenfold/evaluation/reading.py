"""From rows of numbers to answers: read-outs, heads, and what says the same of everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sevenfold.adaptation.readout import Task, knn, probe
from sevenfold.assembly.model import Model
from sevenfold.evaluation.gathered import Targets
from sevenfold.evaluation.vectors import answered

Say = Callable[[np.ndarray], np.ndarray]
"""x [n d] → scores [n columns]."""


def prior(y: np.ndarray, task: Task, columns: int) -> np.ndarray:
    """[columns]: the shares of the classes or labels, or the mean of the numbers."""
    if task == "classes":
        return np.bincount(y, minlength=columns) / len(y)
    return y.astype(np.float64).mean(0)


def varies(x: np.ndarray) -> bool:
    """Whether there is anything to read."""
    return bool(x.size and np.ptp(x, axis=0).max() > 1e-9)


def fitted(x: np.ndarray, y: np.ndarray, task: Task, by: str, scaling: Any, columns: int, seed: int) -> Say:
    """A read-out of x [n d] for y: by `probe` or `knn`. Of what does not vary, it says what is usual."""
    if not varies(x) or (task == "classes" and len(np.unique(y)) < 2):
        usual = prior(y, task, columns)
        return lambda new: np.repeat(usual[None], len(new), 0)
    found: Any = knn(x, y, task) if by == "knn" else probe(x, y, task, scaling=scaling, seed=seed)

    def say(new: np.ndarray) -> np.ndarray:
        scores = found.scores(new)
        if task != "classes":
            return scores
        whole = np.zeros((len(new), columns))
        whole[:, found.classes] = scores
        return whole

    return say


def head_for(model: Model, target: str) -> str | None:
    """The head that gives a stream of the target's name (or field) for a whole item; None: there is none."""
    for name, head in model.config.heads.items():
        stream = model.config.streams.get(head.stream or "")
        if stream is not None and (stream.field or head.stream) == target and head.pool != "none":
            return name
    return None


def heard(model: Model, head: str, raws: list[dict[str, Any]], targets: Targets, task: Task) -> np.ndarray:
    """What a head says of items, by the columns of the targets: a class that it does not know has probability 0."""
    found = answered(model, head, raws)
    modality = model.modalities[model.config.heads[head].stream or ""]
    if task == "numbers":
        return np.array([np.ravel(modality.raw(row[None])) for row in found], np.float64)
    if task == "labels":
        chances = 1 / (1 + np.exp(-found))
    else:
        chances = np.exp(found - found.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
    whole = np.zeros((len(raws), len(targets.names)))
    place = {name: column for column, name in enumerate(targets.names)}
    for id in range(modality.tokenizer.size or 0):
        column = place.get(str(modality.raw(np.array([id]))))
        if column is not None:
            whole[:, column] = chances[:, id]
    return whole
