"""The share of the variance that is told: 1 all, 0 as much as the mean of the truth tells, below 0 less. Of several numbers, the mean.

    1 - sum_i (guess_i - truth_i)^2 / sum_i (truth_i - mean truth)^2   sklearn.metrics.r2_score

NaN where the truth does not vary.
"""

from __future__ import annotations

import numpy as np

from sevenfold.evaluation.metric import Answers, Metric, columns


class R2(Metric):
    tasks = ("numbers",)

    def __call__(self, answers: Answers) -> float:
        return columns(answers, told)


def told(truth: np.ndarray, guess: np.ndarray) -> float:
    total = np.square(truth - truth.mean()).sum()
    return float(1 - np.square(guess - truth).sum() / total) if total > 0 else float("nan")
