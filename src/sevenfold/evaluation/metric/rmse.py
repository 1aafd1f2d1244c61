"""Root mean squared error of numbers; of several, the mean over them.

sqrt(mean_i (guess_i - truth_i)^2)                                 sklearn.metrics.root_mean_squared_error
"""

from __future__ import annotations

import numpy as np

from sevenfold.evaluation.metric import Answers, Metric, columns


class RMSE(Metric):
    tasks = ("numbers",)
    best = 0.0
    larger_is_better = False

    def __call__(self, answers: Answers) -> float:
        return columns(answers, lambda truth, guess: np.sqrt(np.mean((guess - truth) ** 2)))
