"""Whether probabilities mean what they say: of the items answered with 0.8, are 80 % right?

    ECE         sum_b (n_b / n) |accuracy_b - confidence_b|      15 bins of one width, each with its right end
    adaptive    the same over 15 bins with as many items each
    NLL         - mean log p(truth)              Brier   mean sum_c (p_c - [c = truth])^2
    temperature T > 0 that makes NLL of softmax(log p / T) least on validation items

Guo 2017, arXiv:1706.04599 sections 2 and 4.2; adaptive bins: Nixon 2019, arXiv:1904.01685. Brier 1950,
doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from sevenfold.evaluation.interval import number

BINS = 15
LEAST = 1e-12
"""A probability is taken to be at least this, where its logarithm is asked for."""


class Scores(NamedTuple):
    """Figures of some probabilities."""

    ece: float
    adaptive_ece: float
    nll: float
    brier: float


class Calibration(NamedTuple):
    """Of the model's probabilities: as they are, and at the temperature of validation items (None: there were none)."""

    before: Scores
    temperature: float | None
    after: Scores | None
    bins: list[tuple[float, float, int]]
    """(confidence, accuracy, items) of the bins that have any."""

    def plain(self) -> dict[str, Any]:
        after = None if self.after is None else self.after._asdict()
        bins = [{"confidence": c, "accuracy": a, "items": n} for c, a, n in self.bins]
        return {**self.before._asdict(), "temperature": self.temperature, "with_temperature": after, "bins": bins}

    def lines(self) -> list[str]:
        told = [f"Calibration: {_told(self.before)}"]
        if self.after is not None and self.temperature is not None:
            told.append(f"At temperature {self.temperature:.3f}, fitted on validation items: {_told(self.after)}")
        return told


def _told(scores: Scores) -> str:
    return (
        f"ECE {number(scores.ece)}, adaptive {number(scores.adaptive_ece)}, NLL {number(scores.nll)}, "
        f"Brier {number(scores.brier)}"
    )


def calibration(
    scores: np.ndarray, truth: np.ndarray, held_out: tuple[np.ndarray, np.ndarray] | None = None
) -> Calibration:
    """Of probabilities [n k] of classes and the columns of the right ones [n]; `held_out`: the same of validation items."""
    bins = equal_width(scores.max(1), scores.argmax(1) == truth)
    found = temperature(*held_out) if held_out is not None and len(held_out[1]) else None
    after = None if found is None else measured(tempered(scores, found), truth)
    return Calibration(measured(scores, truth), found, after, bins)


def measured(scores: np.ndarray, truth: np.ndarray) -> Scores:
    confidence, right = scores.max(1), scores.argmax(1) == truth
    picked = scores[np.arange(len(truth)), truth]
    brier = np.square(scores).sum(1) - 2 * picked + 1
    return Scores(
        error(equal_width(confidence, right)),
        error(equal_count(confidence, right)),
        float(-np.log(np.clip(picked, LEAST, 1)).mean()),
        float(brier.mean()),
    )


def equal_width(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[tuple[float, float, int]]:
    """Bins ]0, 1/15], ]1/15, 2/15], …: (mean confidence, share of right ones, items) of those that have any."""
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence, side="left")
    return [_bin(confidence, right, place == one) for one in np.unique(place)]


def equal_count(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[tuple[float, float, int]]:
    """Bins of as many items each, by rising confidence."""
    order = np.argsort(confidence, kind="stable")
    return [_bin(confidence, right, some) for some in np.array_split(order, min(bins, len(order)))]


def _bin(confidence: np.ndarray, right: np.ndarray, some: np.ndarray) -> tuple[float, float, int]:
    return float(confidence[some].mean()), float(right[some].mean()), len(confidence[some])


def error(bins: list[tuple[float, float, int]]) -> float:
    """The mean distance of accuracy and confidence, weighted by items."""
    total = sum(items for _, _, items in bins)
    return sum(items * abs(accuracy - confidence) for confidence, accuracy, items in bins) / total


def tempered(scores: np.ndarray, by: float) -> np.ndarray:
    """softmax(log p / T); what is impossible stays so."""
    logits = np.log(np.clip(scores, LEAST, None)) / by
    found = np.exp(logits - logits.max(1, keepdims=True)) * (scores > 0)
    return found / found.sum(1, keepdims=True)


def temperature(scores: np.ndarray, truth: np.ndarray) -> float:
    """The T in 0.05 … 20 with the least NLL."""

    def nll(log_t: float) -> float:
        picked = tempered(scores, float(np.exp(log_t)))[np.arange(len(truth)), truth]
        return float(-np.log(np.clip(picked, LEAST, 1)).mean())

    return float(np.exp(minimize_scalar(nll, bounds=(np.log(0.05), np.log(20)), method="bounded").x))
