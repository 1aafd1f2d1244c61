"""Metrics against scikit-learn and scipy; intervals against closed forms; calibration against both."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from sevenfold.core.part import decode
from sevenfold.core.rooms import kinds
from sevenfold.evaluation.calibration import BINS, calibration, equal_width, error, measured, temperature, tempered
from sevenfold.evaluation.interval import beside, drawn, over_seeds, picks
from sevenfold.evaluation.metric import Answers, Metric


def mean_over(of):
    return lambda a: np.mean([of(t, g) for t, g in zip(a.truth.T, a.scores.T)])


def asked(a):
    """The yes-or-no columns of classes for scikit-learn's multilabel forms."""
    return np.eye(a.scores.shape[1])[a.truth]


CLASSES = {
    "accuracy": lambda a: sk.accuracy_score(a.truth, a.guess),
    "balanced_accuracy": lambda a: sk.balanced_accuracy_score(a.truth, a.guess),
    "macro_f1": lambda a: sk.f1_score(a.truth, a.guess, average="macro"),
    "mcc": lambda a: sk.matthews_corrcoef(a.truth, a.guess),
    "roc_auc": lambda a: sk.roc_auc_score(a.truth, a.scores, multi_class="ovr"),
    "average_precision": lambda a: sk.average_precision_score(asked(a), a.scores, average="macro"),
    "recall_at_k": lambda a: sk.top_k_accuracy_score(a.truth, a.scores, k=5),
}
LABELS = {
    "accuracy": lambda a: sk.accuracy_score(a.truth, a.guess),
    "macro_f1": lambda a: sk.f1_score(a.truth, a.guess, average="macro", zero_division=0),
    "roc_auc": lambda a: sk.roc_auc_score(a.truth, a.scores, average="macro"),
    "average_precision": lambda a: sk.average_precision_score(a.truth, a.scores, average="macro"),
    "recall_at_k": lambda a: np.mean(
        [
            len(set(np.argsort(s, kind="stable")[::-1][:5]) & set(np.flatnonzero(t))) / t.sum()
            for t, s in zip(a.truth, a.scores)
            if t.sum()
        ]
    ),
}
NUMBERS = {
    "rmse": mean_over(sk.root_mean_squared_error),
    "mean_absolute_error": mean_over(sk.mean_absolute_error),
    "r2": lambda a: sk.r2_score(a.truth, a.scores),
    "pearson": mean_over(lambda t, g: stats.pearsonr(t, g)[0]),
    "spearman": mean_over(lambda t, g: stats.spearmanr(t, g)[0]),
}
ORACLES = [
    pytest.param(task, kind, oracle, id=f"{task}-{kind}")
    for task, found in (("classes", CLASSES), ("labels", LABELS), ("numbers", NUMBERS))
    for kind, oracle in found.items()
]


def some(task: str, seed: int, k: int = 8, n: int = 200) -> Answers:
    """Answers that are better than chance, with ties."""
    draw = np.random.default_rng(seed)
    if task == "numbers":
        truth = draw.normal(size=(n, 2)).round(1)
        return Answers("numbers", truth, (truth + draw.normal(size=truth.shape)).round(1))
    if task == "labels":
        truth = (draw.random((n, k)) < draw.uniform(0.1, 0.6, k)).astype(np.int64)
        return Answers("labels", truth, (truth * 0.3 + 0.7 * draw.random(truth.shape)).round(2))
    truth = np.minimum(draw.geometric(0.3, n) - 1, k - 1)
    logits = 1.5 * np.eye(k)[truth] + draw.normal(size=(n, k)).round(1)
    scores = np.exp(logits)
    return Answers("classes", truth, scores / scores.sum(1, keepdims=True))


@pytest.mark.parametrize(("task", "kind", "oracle"), ORACLES)
def test_metrics_are_those_of_scikit_learn_and_scipy(task, kind, oracle):
    metric = decode(Metric.Config, {"kind": kind}).build()
    for seed in range(5):
        answers = some(task, seed)
        assert metric(answers) == pytest.approx(oracle(answers), abs=1e-12)


def test_every_metric_has_its_oracle():
    measured_here = {(task, kind) for task, kind, _ in (case.values for case in ORACLES)}
    rooms = {(t, k) for k in kinds("metric") for t in decode(Metric.Config, {"kind": k}).part.tasks}
    assert measured_here == rooms


@pytest.mark.parametrize("kind", ["accuracy", "macro_f1", "roc_auc", "average_precision"])
def test_two_classes_are_the_second(kind):
    answers = some("classes", 1, k=2)
    asked_of = {
        "roc_auc": lambda: sk.roc_auc_score(answers.truth, answers.scores[:, 1]),
        "average_precision": lambda: sk.average_precision_score(answers.truth, answers.scores[:, 1]),
    }
    wanted = asked_of.get(kind, lambda: CLASSES[kind](answers))()
    assert decode(Metric.Config, kind).build()(answers) == pytest.approx(wanted, abs=1e-12)


def test_a_class_that_was_never_seen_is_wrong():
    """Its column is 0 in every answer; macro F1 counts it with 0, as scikit-learn does."""
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    answers = Answers("classes", np.array([0, 1, 2]), scores)
    assert decode(Metric.Config, "accuracy").build()(answers) == pytest.approx(2 / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = sk.f1_score(answers.truth, answers.guess, average="macro")
    assert decode(Metric.Config, "macro_f1").build()(answers) == pytest.approx(wanted)


# Intervals


def test_the_bootstrap_holds_the_truth_about_as_often_as_it_says():
    """The share of 95 % intervals of a mean that hold it, over 300 sets of 100 items: between 90 % and 98 %."""
    accuracy, held = decode(Metric.Config, "accuracy").build(), 0
    for seed in range(300):
        right = np.random.default_rng(seed).random(100) < 0.7
        scores = np.stack([right, ~right], 1).astype(float)
        found = drawn(accuracy, [Answers("classes", np.zeros(100, int), scores)], picks(100, None, seed, 200)).figure
        low, high = found.resampled
        held += low <= 0.7 <= high
    assert 270 <= held <= 294


def test_the_bootstrap_is_scipys():
    answers = some("numbers", 3)
    metric = decode(Metric.Config, "pearson").build()
    one = Answers("numbers", answers.truth[:, :1], answers.scores[:, :1])
    low, high = drawn(metric, [one], picks(200, None, 0, 3000)).figure.resampled
    found = stats.bootstrap(
        (one.truth[:, 0], one.scores[:, 0]), lambda a, b: stats.pearsonr(a, b)[0], paired=True, vectorized=False,
        method="percentile", n_resamples=3000, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert low == pytest.approx(found.confidence_interval.low, abs=0.01)
    assert high == pytest.approx(found.confidence_interval.high, abs=0.01)


def test_whole_groups_are_drawn():
    groups = np.array(["a"] * 5 + ["b"] * 1 + ["c"] * 2)
    for index in picks(8, groups, 0, 50):
        counts = np.bincount(index, minlength=8)
        assert len(set(counts[:5])) == 1 and counts[6] == counts[7]
        assert sum((counts[0], counts[5], counts[6])) == 3


def test_groups_make_intervals_wider():
    """Ten speakers, each all right or all wrong: 200 items say no more than ten."""
    speakers = np.repeat(np.arange(10), 20)
    right = (speakers % 2 == 0).astype(float)
    answers = Answers("classes", np.zeros(200, int), np.stack([right, 1 - right], 1))
    metric = decode(Metric.Config, "accuracy").build()
    (a, b), (c, d) = (drawn(metric, [answers], picks(200, g, 0)).figure.resampled for g in (None, speakers))
    assert (d - c) > 3 * (b - a)


def test_three_seeds_have_the_t_interval():
    low, high = over_seeds(np.array([0.90, 0.92, 0.97]))
    wanted = stats.t.interval(0.95, 2, loc=0.93, scale=stats.sem([0.90, 0.92, 0.97]))
    assert (low, high) == pytest.approx(wanted)
    assert high - 0.93 == pytest.approx(4.3027 * np.std([0.90, 0.92, 0.97], ddof=1) / 3**0.5, rel=1e-4)
    assert over_seeds(np.array([0.9])) is None


def classes(right) -> Answers:
    right = np.asarray(right, float)
    return Answers("classes", np.zeros(len(right), int), np.stack([right, 1 - right], 1))


@pytest.mark.parametrize(
    ("model", "baseline", "beats"),
    [
        ([0.9] * 3, 0.5, True),
        ([0.52] * 3, 0.5, False),  # 2 of 100 items: within resampling
        ([0.99, 0.80, 0.62], 0.6, False),  # beyond resampling, but not beyond seeds
        ([0.4] * 3, 0.5, False),
    ],
    ids=["clear", "few items", "seeds", "worse"],
)
def test_it_beats_only_by_more_than_the_spread(model, baseline, beats):
    draw = np.random.default_rng(0)
    metric, draws = decode(Metric.Config, "accuracy").build(), picks(100, None, 0, 400)

    def made(share):
        right = np.zeros(100)
        right[draw.permutation(100)[: round(share * 100)]] = 1
        return classes(right)

    rows = {
        "model": drawn(metric, [made(share) for share in model], draws),
        "baseline": drawn(metric, [made(baseline)], draws),
        "majority": drawn(metric, [made(0.1)], draws),
    }
    found = beside(metric, rows, "model")
    assert found.against == "baseline" and found.beats is beats
    assert found.difference.value == pytest.approx(np.mean(model) - baseline)


def test_errors_are_better_if_smaller():
    metric, draws = decode(Metric.Config, "rmse").build(), picks(50, None, 0, 100)
    truth = np.random.default_rng(0).normal(size=(50, 1))
    rows = {
        "model": drawn(metric, [Answers("numbers", truth, truth + 0.1)], draws),
        "mean": drawn(metric, [Answers("numbers", truth, 0 * truth)], draws),
    }
    assert beside(metric, rows, "model").beats and not beside(metric, rows, "mean").beats


# Calibration


def calibrated(n: int, k: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels that are drawn by them: calibrated by construction."""
    draw = np.random.default_rng(seed)
    scores = draw.dirichlet(np.full(k, 0.5), n)
    truth = (draw.random((n, 1)) > scores.cumsum(1)).sum(1).clip(max=k - 1)
    return scores, truth


def test_calibrated_labels_have_no_calibration_error():
    scores, truth = calibrated(40_000)
    found = measured(scores, truth)
    assert found.ece < 0.01 and found.adaptive_ece < 0.01
    sharper = tempered(scores, 0.5)
    assert measured(sharper, truth).ece > 0.05


def test_the_temperature_that_was_applied_is_found_again():
    scores, truth = calibrated(20_000)
    for by in (0.5, 2.0):
        assert temperature(tempered(scores, by), truth) == pytest.approx(1 / by, rel=0.05)
    made = calibration(tempered(scores, 0.5), truth, calibrated(5_000, seed=1))
    assert made.temperature == pytest.approx(1.0, rel=0.1) and made.after.ece > 0.05  # fitted on validation items alone


def test_figures_of_calibration_are_scikit_learns():
    scores, truth = calibrated(500, k=2)
    found = measured(scores, truth)
    assert found.nll == pytest.approx(sk.log_loss(truth, scores))
    assert found.brier == pytest.approx(2 * sk.brier_score_loss(truth, scores[:, 1]))
    confidence, right = scores.max(1), scores.argmax(1) == truth
    accuracy, mean = calibration_curve(right, confidence, n_bins=BINS, strategy="uniform")
    bins = equal_width(confidence, right)
    assert [b[0] for b in bins] == pytest.approx(mean) and [b[1] for b in bins] == pytest.approx(accuracy)
    counts = np.array([b[2] for b in bins])
    assert error(bins) == pytest.approx((counts / 500) @ np.abs(accuracy - mean))


def test_bins_have_their_right_end():
    confidence = np.array([1 / 15, 2 / 15, 2 / 15 + 1e-9, 1.0])
    assert [b[2] for b in equal_width(confidence, np.ones(4, bool))] == [1, 1, 1, 1]
