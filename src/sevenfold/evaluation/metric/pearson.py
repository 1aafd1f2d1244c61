"""Linear correlation of numbers with the truth; of several, the mean over them. NaN where either does not vary.

cov(guess, truth) / (sd(guess) sd(truth))                          scipy.stats.pearsonr
"""

from __future__ import annotations

import numpy as np

from sevenfold.evaluation.metric import Answers, Metric, columns


class Pearson(Metric):
    tasks = ("numbers",)

    def __call__(self, answers: Answers) -> float:
        return columns(answers, correlation)


def correlation(truth: np.ndarray, guess: np.ndarray) -> float:
    """NaN unless both vary."""
    truth, guess = truth - truth.mean(), guess - guess.mean()
    scale = np.linalg.norm(truth) * np.linalg.norm(guess)
    return float(truth @ guess / scale) if scale > 0 else float("nan")
