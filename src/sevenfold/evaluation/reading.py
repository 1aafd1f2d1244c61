"""From rows of numbers to answers: read-outs, heads, and what says the same of everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sevenfold.adaptation.predict import Ways, answered, way_of
from sevenfold.adaptation.readout import Task, knn, probe
from sevenfold.assembly.model import Model
from sevenfold.core.errors import ConfigError
from sevenfold.evaluation.gathered import Targets
from sevenfold.evaluation.vectors import BATCH
from sevenfold.training.load import located
from sevenfold.training.wiring import wiring_of

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


def own_way(run: str, model: Model, target: str) -> Ways | None:
    """How a run says a target by itself: by its head, or by what it was adapted with; None: it does not."""
    try:
        way = way_of(located(run), model, run)
    except ConfigError:
        return None
    stream = model.config.streams.get(way.target)
    return way if target in (way.target, stream.field if stream is not None else None) else None


def own_target(run: str) -> str | None:
    """The field that a run says by itself, supervised or adapted; None: there is none, or several."""
    config = wiring_of(run)
    try:
        name = answered(located(run), config, run)
    except ConfigError:
        return None
    stream = config.streams.get(name or "")
    return name if stream is None or stream.field is None else stream.field


def said(way: Ways, raws: list[dict[str, Any]], targets: Targets, lengths: Sequence[int] | None) -> np.ndarray:
    """What it says of items, by the columns of the targets: a class that it does not know has probability 0. `lengths`: how many
    tokens each item has, where each of them is answered for; they are laid end to end."""
    rows = [row for at in range(0, len(raws), BATCH) for row in way.ask(raws[at : at + BATCH])]
    if lengths is not None:
        rows = [one for row, count in zip(rows, lengths) for one in filled(np.asarray(row), count)]
    if way.classes is None:
        return np.array([np.ravel(way.raw(np.asarray(row))) for row in rows], np.float64)
    found = np.stack(rows)
    whole = np.zeros((len(found), len(targets.names)))
    place = {name: column for column, name in enumerate(targets.names)}
    for name, chances in zip(way.classes, found.T):
        if name in place:
            whole[:, place[name]] = chances
    return whole


def filled(rows: np.ndarray, count: int) -> np.ndarray:
    """As many rows as there are tokens: an item that was cut to the model's length has zeros for the rest."""
    return (
        rows
        if len(rows) == count
        else np.concatenate([rows[:count], np.zeros((max(count - len(rows), 0), rows.shape[1]))])
    )
