"""The mean over classes of the share of their items that is found: each class counts as much, however rare.

mean_c  tp_c / n_c,   over the classes that the items have              sklearn.metrics.balanced_accuracy_score
"""

from __future__ import annotations

import numpy as np

from sevenfold.evaluation.metric import Answers, Metric, confusion


class BalancedAccuracy(Metric):
    def __call__(self, answers: Answers) -> float:
        counts = confusion(answers)
        found = counts.sum(1) > 0
        return float((np.diag(counts)[found] / counts.sum(1)[found]).mean())
