"""How sure a figure is: over which items were tested (bootstrap), over seeds (t), and of a difference (paired).

    resampling   the 2.5 % and 97.5 % quantiles of the figure over draws of n test items (or groups of them) with replacement
    seeds        m +- t_(0.975, S-1) s / sqrt(S)              t_2 = 4.30 for three seeds

Efron 1979, doi:10.1214/aos/1176344552 (percentile bootstrap); Student 1908, doi:10.2307/2331554. Whether one thing beats another is
asked of the differences on the same items: each draw gives both, so what makes a draw easy for both falls out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from sevenfold.core.seeds import numpy_generator
from sevenfold.evaluation.metric import Answers, Metric

LEVEL = 0.95
DRAWS = 1000


class Figure(NamedTuple):
    """A figure: its mean over seeds, the figure of each, and 95 % intervals (None: not known)."""

    value: float
    seeds: tuple[float, ...]
    resampled: tuple[float, float] | None = None
    over_seeds: tuple[float, float] | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: _plain(value) for name, value in self._asdict().items()}

    def shown(self) -> str:
        """`0.953 (0.941 … 0.964)`."""
        if self.value != self.value:
            return "no value"
        return number(self.value) + ("" if self.resampled is None else f" ({_span(self.resampled)})")


class Beside(NamedTuple):
    """What is measured and what it is held against."""

    against: str
    """The best simple baseline."""
    difference: Figure
    """By how much what is measured is better (above 0) or worse."""

    @property
    def beats(self) -> bool:
        """Whether it is better by more than the spread: no interval of the difference holds 0."""
        intervals = [span for span in (self.difference.resampled, self.difference.over_seeds) if span is not None]
        return bool(intervals) and all(low > 0 for low, _ in intervals)


def number(value: float | None) -> str:
    """Four decimals, for people."""
    return "" if value is None or value != value else f"{value:.4f}"


def _span(span: tuple[float, float]) -> str:
    return f"{number(span[0])} … {number(span[1])}"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return None if value is None or not np.isfinite(value) else float(value)


def picks(count: int, groups: np.ndarray | None, seed: int, draws: int = DRAWS) -> list[np.ndarray]:
    """Indices of items drawn with replacement, as often as asked for; whole groups where there are some."""
    draw = numpy_generator("resampling", seed)
    if groups is None:
        return [draw.integers(count, size=count) for _ in range(draws)]
    names, place = np.unique(groups, return_inverse=True)
    order = np.argsort(place, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(place))[:-1])
    return [np.concatenate([members[i] for i in draw.integers(len(names), size=len(names))]) for _ in range(draws)]


def over(values: np.ndarray) -> tuple[float, float] | None:
    """The interval that holds 95 % of some draws; None where most of them have no value."""
    known = values[np.isfinite(values)]
    if len(known) < max(2, len(values) / 2):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def over_seeds(values: np.ndarray) -> tuple[float, float] | None:
    """The interval of a mean over seeds; None for one seed."""
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    reach = student.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values) - reach), float(np.mean(values) + reach)


class Drawn(NamedTuple):
    """One metric of one row of a card: of each seed, on all items [s], and on each draw of them [s draws]; `fixed` where only
    the figure on all items is known, which stands in each draw."""

    values: np.ndarray
    draws: np.ndarray
    fixed: bool = False

    @property
    def figure(self) -> Figure:
        return Figure(
            float(self.values.mean()),
            tuple(self.values.tolist()),
            None if self.fixed else over(self.draws.mean(0)),
            over_seeds(self.values),
        )


def drawn(metric: Metric, answers: Sequence[Answers], draws: Sequence[np.ndarray]) -> Drawn:
    """A metric of what each seed answered."""
    values = np.array([metric(one) for one in answers])
    return Drawn(values, np.array([[metric(one.take(index)) for index in draws] for one in answers]))


def beside(metric: Metric, rows: Mapping[str, Drawn], measured: str) -> Beside | None:
    """What is measured against the best of the other rows; None where there is none."""
    sign = 1 if metric.larger_is_better else -1
    others = {name: sign * row.values.mean() for name, row in rows.items() if name != measured}
    known = {name: value for name, value in others.items() if np.isfinite(value)}
    if not known or not np.isfinite(rows[measured].values).all():
        return None
    best = max(known, key=lambda name: known[name])
    one, other = rows[measured], rows[best]
    paired = len(other.values) == len(one.values)  # a twin of each seed; a baseline has one
    values = sign * (one.values - (other.values if paired else other.values.mean()))
    draws = sign * (one.draws.mean(0) - other.draws.mean(0))
    return Beside(best, Figure(float(values.mean()), tuple(values.tolist()), over(draws), over_seeds(values)))


def sentence(metric: str, figure: Figure, against: Beside, other: Figure, resampled: str = "test items") -> str:
    """The plain words: whether it beats the best simple baseline by more than the spread. `resampled`: what was drawn anew."""
    verb = "beats" if against.beats else "does not beat"
    spans = []
    if against.difference.resampled is not None:
        spans.append(f"{_span(against.difference.resampled)} over resampled {resampled}")
    if against.difference.over_seeds is not None:
        spans.append(f"{_span(against.difference.over_seeds)} over {len(figure.seeds)} seeds")
    told = f" (95 % of the difference: {'; '.join(spans)})" if spans else ""
    by = against.difference.value
    return (
        f"This model {verb} the best simple baseline by more than the spread: {metric} {number(figure.value)} against "
        f"{number(other.value)} of {against.against}, {'better' if by >= 0 else 'worse'} by {number(abs(by))}{told}."
    )
