"""Reading frozen representations: a linear probe with its regularisation chosen on validation samples, and neighbours.

    probe      classes  softmax(W z + b), L2 on W (logistic regression)        numbers  W z + b (ridge)       labels  one sigmoid each
    neighbours p(c | z) ~ sum over the k nearest i of class c of exp(cos(z, z_i) / T)

The probe standardises by training samples (or scales all features by one number: `scaling`), tries strengths of L2 on a
held-out fifth, stratified by class, and is fitted again on all. What it found is linear in z: `weight` and `bias` have the
scaling in them, so that they can be the head of a model. Weighted neighbours: Wu 2018, arXiv:1805.01978 section 3.4, with the
k and T of DINO (arXiv:2104.14294 section 4.1).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from sevenfold.core.errors import DataError

Task = Literal["classes", "numbers", "labels"]
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse strengths of L2 that are tried, per sample and feature."""


def said(scores: np.ndarray, task: Task, classes: np.ndarray | None) -> np.ndarray:
    """Scores [n outputs] → the likeliest classes [n], labels [n c] of 0 and 1, or the numbers themselves."""
    if task == "numbers":
        return scores
    if task == "labels":
        return (scores > 0.5).astype(np.int64)
    assert classes is not None
    return classes[scores.argmax(1)]


class Readout(NamedTuple):
    """What was found. `classes` are the values that y had (None for numbers), `settings` what was chosen, name → value."""

    task: Task
    classes: np.ndarray | None
    weight: np.ndarray
    bias: np.ndarray
    settings: dict[str, Any]

    def scores(self, x: np.ndarray) -> np.ndarray:
        """[n d] → [n outputs]: probabilities of classes or labels, or numbers."""
        z = np.asarray(x, np.float64) @ self.weight.T + self.bias
        if self.task == "numbers":
            return z
        if self.task == "labels":
            return 1 / (1 + np.exp(-np.clip(z, -50, 50)))
        z = np.exp(z - z.max(1, keepdims=True))
        return z / z.sum(1, keepdims=True)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """[n d] → classes [n], labels [n c] of 0 and 1, or numbers [n p]."""
        return said(self.scores(x), self.task, self.classes)


def probe(
    x: np.ndarray, y: np.ndarray, task: Task = "classes", *, scaling: Literal["each", "one"] = "each",
    strengths: Sequence[float] = STRENGTHS, seed: int = 0,
) -> Readout:  # fmt: skip
    """A linear read-out of x [n d]: y [n] classes, [n p] or [n] numbers, [n c] labels of 0 and 1.

    scaling   each: every feature to a standard deviation of 1; one: all by the same number (PCA components, whose
              sizes mean something)

    Raises DataError where there is nothing to tell apart: fewer than two classes, or features that are all constant.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y)
    if task == "numbers" and y.ndim == 1:
        y = y[:, None]
    if len(x) != len(y) or len(x) < 2:
        raise DataError(f"probe: {len(x)} representations and {len(y)} targets: it needs two or more of each, as many")
    if not np.isfinite(x).all():
        raise DataError("probe: a representation is not finite")
    mean, deviation = x.mean(0), x.std(0)
    if not (deviation > 1e-12).any():
        raise DataError("probe: the representations are all equal: there is nothing to read")
    size = np.where(deviation > 1e-12, deviation, np.inf) if scaling == "each" else np.full_like(mean, deviation.max())
    z = (x - mean) / size
    classes = np.unique(y) if task == "classes" else None
    if classes is not None and len(classes) < 2:
        raise DataError(f"probe: all {len(y)} samples are of one class, {classes[0]!r}: there is nothing to tell apart")
    strength, tried = _chosen(z, y, task, strengths, seed)
    weight, bias = _fitted(z, y, task, strength, classes)
    weight = weight / size
    settings = {"strength": strength, "tried": tried, "scaling": scaling}
    return Readout(task, classes, weight, bias - weight @ mean, settings)


def _chosen(
    z: np.ndarray, y: np.ndarray, task: Task, strengths: Sequence[float], seed: int
) -> tuple[float, dict[str, float]]:
    """The strength that does best on a held-out fifth, with what each reached there. Few samples: the middle one."""
    fit, look = _fifth(y, task, seed)
    if len(strengths) == 1 or len(look) < 2 or len(fit) < 2 or (task == "classes" and len(np.unique(y[fit])) < 2):
        return strengths[len(strengths) // 2], {}
    found = {}
    classes = np.unique(y[fit]) if task == "classes" else None
    for strength in strengths:
        weight, bias = _fitted(z[fit], y[fit], task, strength, classes)
        read = Readout(task, classes, weight, bias, {})
        if task == "numbers":
            found[strength] = -float(np.square(read.predict(z[look]) - y[look]).mean())
        elif task == "labels":
            scores = np.clip(read.scores(z[look]), 1e-12, 1 - 1e-12)
            found[strength] = float((y[look] * np.log(scores) + (1 - y[look]) * np.log(1 - scores)).mean())
        else:
            assert classes is not None
            scores = read.scores(z[look])
            place = np.searchsorted(classes, y[look]).clip(max=len(classes) - 1)
            known = classes[place] == y[look]
            right = float((read.predict(z[look]) == y[look]).mean())
            nats = (
                float(np.log(np.clip(scores[np.arange(len(look)), place], 1e-12, 1))[known].mean())
                if known.any()
                else 0.0
            )
            found[strength] = right + 1e-3 * nats  # nats decide between strengths that are right as often
    best = max(found, key=lambda strength: found[strength])
    return best, {f"{strength:g}": value for strength, value in found.items()}


def _fifth(y: np.ndarray, task: Task, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(to fit on, to look at): a fifth of the samples, of each class as far as it goes; a class with one sample is fitted."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(y))
    if task != "classes":
        count = len(y) // 5
        return order[count:], order[:count]
    look: list[int] = []
    for value in np.unique(y):
        own = order[y[order] == value]
        look += own[: max(len(own) // 5, int(2 <= len(own) < 5))].tolist()
    chosen = np.zeros(len(y), bool)
    chosen[look] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _fitted(
    z: np.ndarray, y: np.ndarray, task: Task, strength: float, classes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(weight [outputs d], bias [outputs]) in the scaled features."""
    from sklearn.linear_model import Ridge

    if task == "numbers":
        model = Ridge(alpha=1 / strength).fit(z, y)
        return np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
    if task == "labels":
        weight, bias = np.zeros((y.shape[1], z.shape[1])), np.zeros(y.shape[1])
        for place in range(y.shape[1]):
            if len(np.unique(y[:, place])) < 2:
                bias[place] = 20.0 if y[0, place] else -20.0
                continue
            model = _logistic(strength, z, y[:, place])
            weight[place], bias[place] = model.coef_[0], model.intercept_[0]
        return weight, bias
    model = _logistic(strength, z, y)
    assert classes is not None
    if len(classes) == 2:
        return np.concatenate([-model.coef_, model.coef_]) / 2, np.concatenate(
            [-model.intercept_, model.intercept_]
        ) / 2
    return model.coef_, model.intercept_


def _logistic(strength: float, z: np.ndarray, y: np.ndarray) -> Any:
    """A logistic regression; 300 steps are near enough where a weak strength has not settled by then."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=300).fit(z, y)


class Neighbours(NamedTuple):
    """Representations [n d] of length 1 with their classes (or numbers [n p]), and how they are asked."""

    task: Task
    classes: np.ndarray | None
    memory: np.ndarray
    targets: np.ndarray
    settings: dict[str, Any]

    def scores(self, x: np.ndarray, batch: int = 1024) -> np.ndarray:
        """[n d] → [n classes] probabilities, or [n p] numbers: the weighted mean over the nearest."""
        x = _unit(np.asarray(x, np.float64))
        k = min(self.settings["k"], len(self.memory))
        found = []
        for start in range(0, len(x), batch):
            cosine = x[start : start + batch] @ self.memory.T
            near = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
            weight = np.exp((np.take_along_axis(cosine, near, 1) - 1) / self.settings["temperature"])
            weight /= weight.sum(1, keepdims=True)
            found.append(np.einsum("nk,nkp->np", weight, self.targets[near]))
        return np.concatenate(found) if found else np.zeros((0, self.targets.shape[1]))

    def predict(self, x: np.ndarray) -> np.ndarray:
        """[n d] → classes [n], labels [n c] of 0 and 1, or numbers [n p]."""
        return said(self.scores(x), self.task, self.classes)


def knn(x: np.ndarray, y: np.ndarray, task: Task = "classes", *, k: int = 20, temperature: float = 0.07) -> Neighbours:
    """Weighted nearest neighbours by cosine. x [n d], y as in `probe`."""
    x, y = np.asarray(x, np.float64), np.asarray(y)
    if len(x) != len(y) or not len(x):
        raise DataError(f"knn: {len(x)} representations and {len(y)} targets: it needs some, as many of each")
    if not np.isfinite(x).all():
        raise DataError("knn: a representation is not finite")
    classes = np.unique(y) if task == "classes" else None
    targets = (
        y.reshape(len(y), -1).astype(np.float64) if classes is None else (y[:, None] == classes).astype(np.float64)
    )
    return Neighbours(task, classes, _unit(x), targets, {"k": k, "temperature": temperature})


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
