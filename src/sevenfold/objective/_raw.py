"""What supervised targets are compared with: linear models on raw features, and what does not look at all.

An item is its vectors flattened (or their mean, where items differ in length) and how often each id occurs in it; a token, where
each has a label, the ids or vectors within seven places of it (Qian and Sejnowski 1988, doi:10.1016/0022-2836(88)90564-5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sevenfold.core.types import Batch, Stream

if TYPE_CHECKING:
    from sevenfold.objective.supervised import Supervised

AROUND = 7
"""Places on either side of a token that are its features."""
MOST = 20_000
"""Tokens that are learned from, at most."""
Found = dict[str, dict[str, float]]


def beside(objective: Supervised, train: Sequence[Batch], held_out: Sequence[Batch]) -> Found:
    """Name → {term: value} on the held-out batches, learned from the training ones."""
    x, y = table(objective, train)
    x_new, y_new = table(objective, held_out)
    if not len(y) or not len(y_new):
        return {}
    where = "raw features" if objective.of is None else f"a window of {2 * AROUND + 1} tokens"
    if objective.binary:
        return labels(x, y, x_new, y_new, where)
    return classes(x, y, x_new, y_new, where) if objective.discrete else numbers(x, y, x_new, y_new, where)


def classes(x: np.ndarray, y: np.ndarray, x_new: np.ndarray, y_new: np.ndarray, where: str) -> Found:
    from sklearn.linear_model import LogisticRegression

    found = {"majority class": {"accuracy": float((y_new == np.bincount(y).argmax()).mean())}}
    if len(set(y.tolist())) > 1:
        model = LogisticRegression(max_iter=1000).fit(x, y)
        found[f"logistic regression on {where}"] = {"accuracy": float(model.score(x_new, y_new))}
    return found


def numbers(x: np.ndarray, y: np.ndarray, x_new: np.ndarray, y_new: np.ndarray, where: str) -> Found:
    from sklearn.linear_model import Ridge

    guess = Ridge().fit(x, y).predict(x_new).reshape(y_new.shape)
    return {
        "mean": {"mse": float(np.square(y_new - y.mean(0)).mean())},
        f"ridge regression on {where}": {"mse": float(np.square(guess - y_new).mean())},
    }


def labels(x: np.ndarray, y: np.ndarray, x_new: np.ndarray, y_new: np.ndarray, where: str) -> Found:
    """One logistic regression a label; a label that all or none have is taken as that often."""
    from sklearn.linear_model import LogisticRegression

    share = np.broadcast_to((y.sum(0) + 1) / (len(y) + 2), y_new.shape)
    guess = share.copy()
    for place in range(y.shape[1]):
        if 0 < y[:, place].sum() < len(y):
            guess[:, place] = LogisticRegression(max_iter=1000).fit(x, y[:, place]).predict_proba(x_new)[:, 1]
    return {"how often each label occurs": _of(share, y_new), f"logistic regression on {where}": _of(guess, y_new)}


def _of(p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    nats = -float(np.where(y > 0.5, np.log(p.clip(1e-12)), np.log((1 - p).clip(1e-12))).mean())
    found = p > 0.5
    total = float(found.sum() + y.sum())
    return {"nats": nats} | ({"f1": float(2 * (found * y).sum()) / total} if total else {})


def table(objective: Supervised, batches: Sequence[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """Raw features of the input streams, [items or tokens, columns], and targets."""
    features, targets, tokens = [], [], 0
    for batch in batches:
        if objective.target not in batch or not objective.reads(batch) or tokens >= MOST:
            continue
        known, values = objective.known(batch), batch[objective.target].values
        if objective.of is None:
            columns = [_item(objective, name, batch.get(name), known) for name in objective.inputs]
            features.append(torch.cat(columns, 1))
            targets.append(values[:, 0][known])
        elif objective.of in batch:
            features.append(_window(objective, batch[objective.of], known))
            targets.append(values[:, : known.shape[1]][known])
            tokens += len(targets[-1])
    if not features:
        return np.zeros((0, 1)), np.zeros(0)
    return torch.cat(features).numpy(), torch.cat(targets).numpy()


def _item(objective: Supervised, name: str, stream: Stream | None, known: Tensor) -> Tensor:
    """A stream of the rows whose target is known, [rows, columns]."""
    tokenizer = objective.model.modalities[name].tokenizer
    layout = tokenizer.layout()
    if stream is None:
        wide = tokenizer.size or (tokenizer.features or 0) * (1 if layout is None else len(layout))
        return torch.zeros(int(known.sum()), wide)
    stream = stream.rows(known)
    valid = torch.ones(stream.values.shape[:2]) if stream.valid is None else stream.valid.float()
    if stream.discrete:
        assert tokenizer.size is not None
        return torch.zeros(len(valid), tokenizer.size).scatter_add_(1, stream.values, valid)
    if layout is not None:
        return stream.values.flatten(1)
    return (stream.values * valid[..., None]).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)


def _window(objective: Supervised, stream: Stream, known: Tensor) -> Tensor:
    """What stands around each token whose label is known, [tokens, columns]; zeros beyond the ends."""
    stream = objective._labelled(stream).slice(0, known.shape[1])
    x = stream.values
    if stream.discrete:
        size = objective.model.modalities[objective.of or ""].tokenizer.size
        assert size is not None
        x = torch.nn.functional.one_hot(x, size).float()
    if stream.valid is not None:
        x = x * stream.valid[..., None]
    padded = torch.nn.functional.pad(x, (0, 0, AROUND, AROUND))
    rows, places = known.nonzero(as_tuple=True)
    steps = places[:, None] + torch.arange(2 * AROUND + 1)
    return padded[rows[:, None], steps].flatten(1)
