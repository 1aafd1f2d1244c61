"""How often an item of the class has a higher score than one of another: the area under the ROC curve; for more than two
classes, and for labels, the mean over them, each against the rest.

    P(s_i > s_j) + P(s_i = s_j) / 2,   i of the class, j not            sklearn.metrics.roc_auc_score (ovr, macro)
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from sevenfold.evaluation.metric import Answers, Metric, binary


class RocAuc(Metric):
    tasks = ("classes", "labels")

    def __call__(self, answers: Answers) -> float:
        found = [area(yes, score) for yes, score in binary(answers)]
        return float(np.mean(found)) if found else float("nan")


def area(yes: np.ndarray, score: np.ndarray) -> float:
    """By ranks (Mann and Whitney)."""
    count = int(yes.sum())
    ranks = rankdata(score)[yes == 1].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (len(yes) - count)))
