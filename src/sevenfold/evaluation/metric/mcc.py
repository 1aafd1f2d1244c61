"""Matthews correlation of classes: 1 all right, 0 no better than chance, whatever the shares of the classes.

    (n s - sum_c p_c t_c) / sqrt((n^2 - sum_c p_c^2) (n^2 - sum_c t_c^2))

s right answers, p_c answers and t_c items of class c; 0 where a root is 0. Gorodkin 2004,
doi:10.1016/j.compbiolchem.2004.09.006; sklearn.metrics.matthews_corrcoef.
"""

from __future__ import annotations

import numpy as np

from sevenfold.evaluation.metric import Answers, Metric, confusion


class MCC(Metric):
    def __call__(self, answers: Answers) -> float:
        counts = confusion(answers)
        n, p, t = counts.sum(), counts.sum(0), counts.sum(1)
        scale = np.sqrt((n**2 - p @ p) * (n**2 - t @ t))
        return float((n * np.trace(counts) - p @ t) / scale) if scale > 0 else 0.0
