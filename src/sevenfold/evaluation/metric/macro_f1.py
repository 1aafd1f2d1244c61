"""The mean over classes (or labels) of the harmonic mean of precision and recall.

mean_c  2 tp_c / (2 tp_c + fp_c + fn_c),   over the classes that items have or answers name     sklearn.metrics.f1_score, macro
"""

from __future__ import annotations

import numpy as np

from sevenfold.evaluation.metric import Answers, Metric, confusion, f1


class MacroF1(Metric):
    tasks = ("classes", "labels")

    def __call__(self, answers: Answers) -> float:
        if answers.task == "labels":
            truth, guess = answers.truth.astype(float), answers.guess.astype(float)
            return float(f1((truth * guess).sum(0), ((1 - truth) * guess).sum(0), (truth * (1 - guess)).sum(0)).mean())
        counts = confusion(answers)
        hits = np.diag(counts)
        wrong, missed = counts.sum(0) - hits, counts.sum(1) - hits
        return float(f1(hits, wrong, missed)[hits + wrong + missed > 0].mean())
