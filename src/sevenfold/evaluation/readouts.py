"""The card of a target: what is told of it from the frozen representation, beside what simple methods tell from raw features.

Rows: the model; the majority or the mean; logistic or ridge regression on each kind of raw features; the same backbone with its first
weights, pooled and read out alike. A baseline learns from the same items as the read-out, and is given the same streams.
"""

from __future__ import annotations

import numpy as np

from sevenfold.adaptation.readout import Task
from sevenfold.assembly.model import Model, check_pool
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode
from sevenfold.core.seeds import numpy_generator
from sevenfold.evaluation.asked import Asked
from sevenfold.evaluation.calibration import Calibration, calibration
from sevenfold.evaluation.card import MODEL, TWIN, Card
from sevenfold.evaluation.interval import beside, drawn, picks, sentence
from sevenfold.evaluation.metric import Answers, Metric
from sevenfold.evaluation.parts import Data, one_recipe, parts
from sevenfold.evaluation.picture import reliability, scatter
from sevenfold.evaluation.problem import Problem, Table, leaked, problem, raw_tables, rows_of, table
from sevenfold.evaluation.reading import fitted, own_way, prior, said, varies
from sevenfold.evaluation.vectors import twin
from sevenfold.training.load import load
from sevenfold.training.recipe import device_of

USUAL: dict[str, tuple[str, ...]] = {
    "classes": ("accuracy", "macro_f1"),
    "labels": ("average_precision", "macro_f1"),
    "numbers": ("r2", "rmse", "spearman"),
}
"""Metrics where none are asked for; the first is the figure."""
Rows = dict[str, list[Answers]]
Validated = tuple[np.ndarray, np.ndarray]
"""Probabilities of items that the read-out did not learn from, and the columns of the right classes."""


def card(runs: list[str], data: Data | None, asked: Asked) -> Card:
    """The card of one target. Several runs are seeds of one recipe."""
    assert asked.target is not None
    check_pool(asked.pool)
    recipe = one_recipe(runs)
    models = [load(run).to(device_of(None)) for run in runs]
    of = problem(models[0], parts(runs, recipe, data, asked.split, asked.target), asked)
    ways = [None if of.by_token else own_way(run, model, asked.target) for run, model in zip(runs, models)]
    by = asked.by or ("head" if ways[0] is not None else "probe")
    if by == "head" and ways[0] is None:
        raise ConfigError(f"by: the model says nothing of {asked.target!r} by itself: use probe or knn")
    metrics = metrics_for(asked, of.task, of.columns)
    tables = [table(model, of) for model in models]
    notes = of.notes
    if not all(varies(one.learn) for one in tables):
        notes.append("the representations are all equal (collapsed): read out, they say the same of everything")
    held: list[Validated] = []
    rows: Rows = {MODEL: []}
    for way, found in zip(ways, tables):
        if by == "head" and way is not None:
            scores = said(way, of.test.raws, of.targets)
            if of.valid.raws and of.task == "classes":
                held.append((said(way, of.valid.raws, of.targets), _columns(of)))
        else:
            scores, validated = _read(found, of, by)
            held += [] if validated is None else [validated]
        rows[MODEL].append(Answers(of.task, of.targets.test, scores))
    rows |= _baselines(models, of, by, notes)
    made = _calibrated(rows[MODEL], held)
    truth = of.targets.test
    labels = [of.targets.names[one] for one in truth] if of.task == "classes" else truth[:, 0]
    pictures = [scatter(tables[0].test, labels, asked.drawing, asked.target)]
    pictures += [] if made is None else [reliability(made)]
    return _card(runs, by, of, rows, metrics, made, [*notes, *asked.note], pictures, models[0])


def metrics_for(asked: Asked, task: Task, columns: int) -> list[Metric]:
    """The metrics that are asked for, or the usual ones; ConfigError for one that does not measure the task."""
    usual = (*USUAL[task], "roc_auc") if task == "classes" and columns == 2 else USUAL[task]
    found = [one.build() for one in asked.metric or [decode(Metric.Config, {"kind": name}) for name in usual]]
    for metric in found:
        if task not in metric.tasks:
            what = " and ".join(metric.tasks)
            raise ConfigError(f"metric: {metric.kind} is for {what}, and {asked.target!r} is to be told as {task}")
    return found


def _columns(of: Problem) -> np.ndarray:
    """Columns of the classes of validation items; -1 for one that is none of them."""
    place = {name: column for column, name in enumerate(of.targets.names)}
    return np.array([place.get(str(one), -1) for one in of.valid.targets], np.int64)


def _read(found: Table, of: Problem, by: str) -> tuple[np.ndarray, Validated | None]:
    """(scores of the test rows, what validates their temperature where there are classes)."""
    x, y, seed = found.learn, of.targets.train, of.asked.seed
    say = fitted(x, y, of.task, by, "each", of.columns, seed)
    scores = say(found.test)
    if of.task != "classes":
        return scores, None
    if len(found.valid):
        return scores, (say(found.valid), _columns(of))
    fifth = numpy_generator("fifth", seed).permutation(len(y)) % 5 == 0
    if not fifth.any() or fifth.all():
        return scores, None
    return scores, (fitted(x[~fifth], y[~fifth], of.task, by, "each", of.columns, seed)(x[fifth]), y[fifth])


def _baselines(models: list[Model], of: Problem, by: str, notes: list[str]) -> Rows:
    """Every other row."""
    truth, y, columns, seed = of.targets.test, of.targets.train, of.columns, of.asked.seed
    name = {"classes": "majority class", "labels": "shares of the labels", "numbers": "mean"}[of.task]
    rows: Rows = {name: [Answers(of.task, truth, np.repeat(prior(y, of.task, columns)[None], len(truth), 0))]}
    method = "ridge regression" if of.task == "numbers" else "logistic regression"
    for what, found, scaling in raw_tables(models[0], of):
        if not varies(found.learn):
            notes.append(f"{what}: constant over the training items, so there is no {method} on them")
            continue
        scores = fitted(found.learn, y, of.task, "probe", scaling, columns, seed)(found.test)
        rows[f"{method} on {what}"] = [Answers(of.task, truth, scores)]
    told = f"{TWIN}, with a probe" if by == "head" else TWIN
    twins = [table(twin(model, seed + place), of) for place, model in enumerate(models)]
    means = "knn" if by == "knn" else "probe"
    answers = [fitted(one.learn, y, of.task, means, "each", columns, seed)(one.test) for one in twins]
    return {**rows, told: [Answers(of.task, truth, scores) for scores in answers]}


def _calibrated(answers: list[Answers], held: list[Validated]) -> Calibration | None:
    """Of the probabilities of classes, all seeds together."""
    if answers[0].task != "classes":
        return None
    known = [(scores[truth >= 0], truth[truth >= 0]) for scores, truth in held]
    validated = (np.concatenate([s for s, _ in known]), np.concatenate([t for _, t in known])) if known else None
    return calibration(
        np.concatenate([one.scores for one in answers]), np.concatenate([one.truth for one in answers]), validated
    )


def _card(
    runs: list[str], by: str, of: Problem, rows: Rows, metrics: list[Metric], made: Calibration | None, notes: list[str],
    pictures: list[str], model: Model,
) -> Card:  # fmt: skip
    """Figures with their intervals, with and without what leaked."""
    asked, main = of.asked, metrics[0]
    draws = picks(len(of.targets.test), of.owner, asked.seed)
    found = {row: {metric.name: drawn(metric, answers, draws) for metric in metrics} for row, answers in rows.items()}
    figures = {row: {name: one.figure for name, one in values.items()} for row, values in found.items()}
    first = {row: values[main.name] for row, values in found.items()}
    against = beside(main, first, MODEL)
    if against is None:
        notes = [*notes, f"{main.name} has no value on these test items, so nothing can be said"]
    told = "" if against is None else sentence(main.name, first[MODEL].figure, against, first[against.against].figure)
    leaks = leaked(model, of)
    clean, told_clean = {}, ""
    if leaks.found:
        kept = rows_of(leaks.places, of)
        if len(kept) < 2:
            told_clean = "nothing is left to test on"
        else:
            draws = picks(len(kept), None if of.owner is None else of.owner[kept], asked.seed)
            again = {row: drawn(main, [one.take(kept) for one in answers], draws) for row, answers in rows.items()}
            clean = {row: one.figure for row, one in again.items()}
            other = beside(main, again, MODEL)
            told_clean = "" if other is None else sentence(main.name, clean[MODEL], other, clean[other.against])
    how = {
        "target": asked.target or "",
        "task": f"{of.task} of each token" if of.by_token else of.task,
        "by": by,
        "pool": "none" if of.by_token else asked.pool,
        "streams": ", ".join(dict.fromkeys(name for item in of.test.raws for name in item)),
    }
    samples = {
        "tested": len(of.test.raws),
        "rows_tested": len(of.targets.test),
        "learned_from": len(of.learn.raws),
        "without_target": {"train": of.every.without, "test": of.test.without},
        "unreadable": len(of.bad),
    }
    return Card(
        asked.name or f"{asked.target}_{by}", tuple(runs), of.parts.told, samples, how, main.name, figures, against, told, leaks,
        clean, told_clean, made, tuple(notes), tuple(pictures),
    )  # fmt: skip
