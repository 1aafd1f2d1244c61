"""The share of what is right that is among the k best answers. Of classes: how often the right one is (top-k accuracy, and recall
at k of a retrieval in which one item is meant). Of labels: the mean share of an item's labels.

    mean_i  |top_k(s_i) and truth_i| / |truth_i|,   over the items that have any      sklearn.metrics.top_k_accuracy_score

Of equal scores those of later columns count as higher, as there.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from sevenfold.evaluation.metric import Answers, Metric


class RecallAtK(Metric):
    class Config(Metric.Config):
        k: int = Field(5, ge=1)
        """How many answers are looked at."""

    tasks = ("classes", "labels")
    variants = ({"k": 1},)

    @property
    def name(self) -> str:
        return f"recall at {self.config.k}"

    def __call__(self, answers: Answers) -> float:
        place = np.argsort(answers.scores, axis=1, kind="stable")[:, ::-1][:, : self.config.k]
        if answers.task == "classes":
            return float((place == answers.truth[:, None]).any(1).mean())
        has = answers.truth.sum(1)
        found = np.take_along_axis(answers.truth, place, 1).sum(1)[has > 0] / has[has > 0]
        return float(found.mean()) if len(found) else float("nan")
