"""Metrics: one number that says how well answers fit the truth.

The contract of this room. A metric reads a whole set of answers at once and gives the figure that scikit-learn or scipy gives.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np

from sevenfold.adaptation.readout import Task
from sevenfold.core import part


class Answers(NamedTuple):
    """What was asked of some items, and what was answered.

    task    classes: truth [n] is the column of the right class     scores [n k] probabilities of the classes
            labels:  truth [n k] of 0 and 1                         scores [n k] probability of each label
            numbers: truth [n p]                                    scores [n p] the numbers that were answered
    """

    task: Task
    truth: np.ndarray
    scores: np.ndarray

    def take(self, index: np.ndarray) -> Answers:
        """The answers about some items."""
        return Answers(self.task, self.truth[index], self.scores[index])

    @property
    def guess(self) -> np.ndarray:
        """What was answered in the form of the truth: the likeliest class, the labels above 0.5, the numbers."""
        if self.task == "classes":
            return self.scores.argmax(1)
        return (self.scores > 0.5).astype(np.int64) if self.task == "labels" else self.scores


class Metric(part.Part):
    """Answers → one number; NaN where it has no meaning (the area under a curve of one class)."""

    room = "metric"

    class Config(part.Config):
        pass

    tasks: ClassVar[tuple[Task, ...]] = ("classes",)
    """The tasks that it measures."""
    best: ClassVar[float] = 1.0
    """What perfect answers get."""
    larger_is_better: ClassVar[bool] = True
    """Otherwise smaller is."""

    def __init__(self, config: Any):
        self.config = config

    @property
    def name(self) -> str:
        """What it is called on a card."""
        return self.kind.replace("_", " ")  # type: ignore[union-attr]

    def __call__(self, answers: Answers) -> float:
        raise NotImplementedError


def confusion(answers: Answers) -> np.ndarray:
    """[k k]: how many items of the class of a row were answered with that of a column."""
    k = answers.scores.shape[1]
    return np.bincount(answers.truth * k + answers.guess, minlength=k * k).reshape(k, k).astype(np.float64)


def f1(hits: np.ndarray, wrong: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """2 tp / (2 tp + fp + fn), 0 where there is nothing to find and nothing is answered."""
    total = 2 * hits + wrong + missed
    return np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)


def binary(answers: Answers) -> list[tuple[np.ndarray, np.ndarray]]:
    """(truth of 0 and 1 [n], scores [n]) of each yes-or-no question: one for two classes (the second), one a class for more of
    those that the items have, one a label that some item has and another has not."""
    truth, scores = answers.truth, answers.scores
    if answers.task == "classes":
        places = [1] if scores.shape[1] == 2 else np.unique(truth).tolist()
        asked = [((truth == place).astype(np.int64), scores[:, place]) for place in places]
    else:
        asked = [(truth[:, place], scores[:, place]) for place in range(truth.shape[1])]
    return [(yes, score) for yes, score in asked if 0 < yes.sum() < len(yes)]


def columns(answers: Answers, of: Any) -> float:
    """The mean over the columns of numbers of what `of` says of (truth, guess); NaN if any column has none."""
    return float(np.mean([of(t, g) for t, g in zip(answers.truth.T, answers.scores.T)]))
