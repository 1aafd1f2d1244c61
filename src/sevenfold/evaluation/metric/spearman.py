"""Correlation of ranks: whether the order is right, whatever the scale; of several numbers, the mean over them.

Pearson's correlation of the ranks, ties by their mean             scipy.stats.spearmanr
"""

from __future__ import annotations

from scipy.stats import rankdata

from sevenfold.evaluation.metric import Answers, Metric, columns
from sevenfold.evaluation.metric.pearson import correlation


class Spearman(Metric):
    tasks = ("numbers",)

    def __call__(self, answers: Answers) -> float:
        return columns(answers, lambda truth, guess: correlation(rankdata(truth), rankdata(guess)))
