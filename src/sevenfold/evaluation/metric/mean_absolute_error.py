"""Mean absolute error of numbers; of several, the mean over them.

mean_i |guess_i - truth_i|                                         sklearn.metrics.mean_absolute_error
"""

from __future__ import annotations

import numpy as np

from sevenfold.evaluation.metric import Answers, Metric, columns


class MeanAbsoluteError(Metric):
    tasks = ("numbers",)
    best = 0.0
    larger_is_better = False

    def __call__(self, answers: Answers) -> float:
        return columns(answers, lambda truth, guess: np.mean(np.abs(guess - truth)))
