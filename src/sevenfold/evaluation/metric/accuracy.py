"""The share of right answers; of labels, the share of items all of whose labels are right.

sum_i [guess_i = truth_i] / n              sklearn.metrics.accuracy_score
"""

from __future__ import annotations

from sevenfold.evaluation.metric import Answers, Metric


class Accuracy(Metric):
    tasks = ("classes", "labels")

    def __call__(self, answers: Answers) -> float:
        right = answers.guess == answers.truth
        return float((right if right.ndim == 1 else right.all(1)).mean())
