"""What every metric must do: see the contract in sevenfold.evaluation.metric."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from sevenfold.conformance._kit import expect
from sevenfold.core.seeds import numpy_generator
from sevenfold.evaluation.metric import Answers


def answers(config: Any, right: bool) -> Iterator[Answers]:
    """Some answers of each task that it measures: all right, or at random."""
    draw = numpy_generator("metric", right)
    for task in config.part.tasks:
        n, k = 60, 4
        if task == "classes":
            truth: Any = draw.permutation(np.arange(n) % k)
            scores = draw.dirichlet(np.ones(k), n)
            exact = np.eye(k)[truth]
        elif task == "labels":
            truth = draw.integers(0, 2, (n, k))
            truth[:2] = [[1] * k, [0] * k]
            scores, exact = draw.random((n, k)), truth.astype(float)
        else:
            truth = draw.normal(size=(n, 2))
            scores, exact = draw.normal(size=(n, 2)), truth
        yield Answers(task, truth, exact if right else scores)


def check_perfect(config: Any) -> None:
    """Right answers get the best figure, and random ones a worse."""
    metric = config.build()
    for found in answers(config, right=True):
        value = metric(found)
        labels = found.task == "labels" and "k" in type(config).model_fields  # more labels than are looked at
        expect(
            labels or abs(value - metric.best) < 1e-12, f"{found.task}: right answers get {value}, not {metric.best}"
        )
    for found in answers(config, right=False):
        value = metric(found)
        worse = value < metric.best if metric.larger_is_better else value > metric.best
        expect(worse or getattr(config, "k", 0) >= found.scores.shape[1], f"{found.task}: random answers get {value}")


def check_order(config: Any) -> None:
    """The order of the items does not matter, nor whether each is there twice."""
    metric = config.build()
    for found in answers(config, right=False):
        order = numpy_generator("order").permutation(len(found.truth))
        value, other = metric(found), metric(found.take(order))
        expect(abs(value - other) < 1e-9, f"{found.task}: in another order it is {other} instead of {value}")
        twice = metric(found.take(np.concatenate([order, order])))
        expect(abs(value - twice) < 1e-9, f"{found.task}: of every item twice it is {twice} instead of {value}")


def check_nothing_to_tell(config: Any) -> None:
    """One item, or answers that are all equal: a number or NaN, without a warning."""
    metric = config.build()
    for found in answers(config, right=False):
        same = found.take(np.zeros(5, int))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for few in (found.take(np.zeros(1, int)), same, found._replace(scores=np.repeat(same.scores, 12, 0))):
                value = metric(few)
                expect(isinstance(value, float) and not math.isinf(value), f"{found.task}: gives {value!r}")


def check_pure(config: Any) -> None:
    """The answers are left as they were, and asked again it says the same."""
    metric = config.build()
    for found in answers(config, right=False):
        before = found.truth.copy(), found.scores.copy()
        expect(metric(found) == metric(found), f"{found.task}: says something else the second time")
        same = np.array_equal(before[0], found.truth) and np.array_equal(before[1], found.scores)
        expect(same, f"{found.task}: changes the answers")
