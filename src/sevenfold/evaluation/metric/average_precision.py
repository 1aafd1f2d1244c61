"""The mean precision over all thresholds, weighted by the rise in recall: for what is rare. The mean over classes or labels.

sum_t (R_t - R_(t-1)) P_t                                          sklearn.metrics.average_precision_score (macro)
"""

from __future__ import annotations

import numpy as np

from sevenfold.evaluation.metric import Answers, Metric, binary


class AveragePrecision(Metric):
    tasks = ("classes", "labels")

    def __call__(self, answers: Answers) -> float:
        found = [average_precision(yes, score) for yes, score in binary(answers)]
        return float(np.mean(found)) if found else float("nan")


def average_precision(yes: np.ndarray, score: np.ndarray) -> float:
    """Equal scores are one threshold."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    hits = yes[order].cumsum()[ends]
    precision, recall = hits / (ends + 1), hits / hits[-1]
    return float(np.diff(recall, prepend=0.0) @ precision)
