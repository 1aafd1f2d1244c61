"""The card of what a model draws: is it read, by a classifier that only ever saw real items, as what was asked for?

    agreement = share of test items i for which  judge(drawn as item i asks for) = target_i

The judge is a support vector machine on raw features (Cortes and Vapnik 1995, doi:10.1007/BF00994018; C = 10), after the classification
accuracy score of Ravuri and Vinyals 2019, arXiv:1905.10887. Beside: the same drawings held against the targets of other items (chance),
drawings of the same backbone with its first weights, and, as the most that can be hoped for, what the judge says of real test items.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from sevenfold.assembly.model import Model
from sevenfold.core.errors import ConfigError, DataError, did_you_mean
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.bad import BadSamples
from sevenfold.evaluation.asked import Asked
from sevenfold.evaluation.card import MODEL, TWIN, Card
from sevenfold.evaluation.gathered import checked, chosen, encoded, field_called, gather
from sevenfold.evaluation.interval import beside, drawn, picks, sentence
from sevenfold.evaluation.metric import Answers
from sevenfold.evaluation.parts import Data, one_recipe, parts
from sevenfold.evaluation.readouts import metrics_for
from sevenfold.evaluation.vectors import twin
from sevenfold.modality._features import Features
from sevenfold.training.load import load
from sevenfold.training.prepare import field_of
from sevenfold.training.recipe import device_of

REAL = "real test items (the most to hope for)"
CHANCE = "its drawings for other items (chance)"
JUDGED = 5_000
"""At most so many real items to learn from: the cost rises with the square."""


def judge(x: np.ndarray, y: np.ndarray) -> Any:
    """A classifier of raw features [n d], which learns from real items only."""
    from sklearn.svm import SVC

    return SVC(C=10).fit(x, y)


def card(runs: list[str], data: Data | None, asked: Asked) -> Card:
    """The card of what is drawn. Several runs are seeds of one recipe."""
    assert asked.target is not None
    recipe = one_recipe(runs)
    models = [load(run).to(device_of(None)) for run in runs]
    stream = _drawn_stream(models[0], asked)
    found = parts(runs, recipe, data, asked.split, asked.target)
    target, bad = field_called(found.source, asked.target, "target"), BadSamples(1.0)
    names = [stream, *_given(models[0], stream, asked)]
    fields = {name: field_of(name, models[0].config.streams[name], found.source.fields) for name in names}
    check = checked("label")
    real = gather(models[0], found.source, found.train, {stream: fields[stream]}, target, check, None, bad)
    test = gather(models[0], found.tested, found.test, fields, target, check, asked.group, bad)
    if not real.raws or not test.raws:
        raise DataError(f"target {target!r}: no {'training' if test.raws else 'test'} item has one")
    real = real.take(chosen(real.targets, min(asked.most, JUDGED), asked.per_class, asked.seed))
    targets = encoded("classes", real.targets, test.targets, target)
    (features, *_) = models[0].modalities[stream].features([item[stream] for item in real.raws])
    reader = judge(features.of([item[stream] for item in real.raws]), targets.train)

    def answers(raws: Sequence[Any], truth: np.ndarray) -> Answers:
        return Answers("classes", truth, _said(reader, features, raws, len(targets.names)))

    def rows_of(model: Model, seed: int) -> list[Any]:
        given = {name: [item[name] for item in test.raws] for name in names[1:]}
        return model.generate(
            stream=stream, given=given, seed=seed, guidance=asked.guidance, temperature=asked.temperature
        )

    seeds = [asked.seed + place for place in range(len(models))]
    made = [rows_of(model, seed) for model, seed in zip(models, seeds)]
    other = numpy_generator("other items", asked.seed).permutation(len(test.raws))
    rows = {
        MODEL: [answers(raws, targets.test) for raws in made],
        CHANCE: [answers(raws, targets.test[other]) for raws in made],
        TWIN: [answers(rows_of(twin(model, seed), seed), targets.test) for model, seed in zip(models, seeds)],
        REAL: [answers([item[stream] for item in test.raws], targets.test)],
    }
    metrics = metrics_for(asked, "classes", len(targets.names))
    draws = picks(len(test.raws), None if test.groups is None else np.array(test.groups), asked.seed)
    every = {row: {metric.name: drawn(metric, one, draws) for metric in metrics} for row, one in rows.items()}
    main = metrics[0]
    first = {row: values[main.name] for row, values in every.items()}
    against = beside(main, {row: one for row, one in first.items() if row != REAL}, MODEL)
    assert against is not None
    return Card(
        name=asked.name or f"{target}_drawn",
        runs=tuple(runs),
        data=found.told,
        samples={"tested": len(test.raws), "learned_from": len(real.raws), "unreadable": len(bad)},
        how={
            "target": target, "by": "drawn", "stream": stream, "given": ", ".join(names[1:]),
            "judge": f"support vector machine on {features.name}", "guidance": f"{asked.guidance:g}",
            "temperature": f"{asked.temperature:g}",
        },
        metric=main.name,
        rows={row: {name: one.figure for name, one in values.items()} for row, values in every.items()},
        beside=against,
        told=sentence(main.name, first[MODEL].figure, against, first[against.against].figure),
        notes=(*targets.notes, *asked.note),
        pictures=(_shown(models[0], stream, test.targets, made[0]),),
    )  # fmt: skip


def _drawn_stream(model: Model, asked: Asked) -> str:
    """What is drawn: the stream that is named, or the only one that is no target and that a head gives."""
    if asked.stream is not None:
        if asked.stream not in model.modalities:
            raise ConfigError(f"stream: there is no {asked.stream!r}{did_you_mean(asked.stream, model.modalities)}")
        return asked.stream
    heads = {head.stream for head in model.config.heads.values() if head.stream is not None and head.pool == "none"}
    names = sorted(name for name in heads if (model.config.streams[name].field or name) != asked.target)
    if len(names) != 1:
        raise ConfigError(f"stream: say what the model draws, one of {', '.join(model.modalities)} (--stream)")
    return names[0]


def _given(model: Model, stream: str, asked: Asked) -> list[str]:
    """What it is drawn from: the streams that are named, or all others."""
    for name in asked.streams:
        if name not in model.modalities or name == stream:
            raise ConfigError(f"streams: {name!r} is nothing that {stream!r} can be drawn from")
    found = [name for name in asked.streams or model.modalities if name != stream]
    if not found:
        raise ConfigError(
            f"by: {stream!r} is drawn from nothing, so it cannot be asked for: the model has no other stream"
        )
    return found


def _said(reader: Any, features: Features, raws: Sequence[Any], columns: int) -> np.ndarray:
    """[n columns] of 0 and 1: what the judge reads; nothing of what is no item of the modality (a broken drawing)."""
    scores = np.zeros((len(raws), columns + 1))
    for row, raw in zip(scores, raws):
        try:
            row[int(reader.predict(features.of([raw]))[0])] = 1
        except (ValueError, TypeError, IndexError, AttributeError):
            row[columns] = 1
    return scores


def _shown(model: Model, stream: str, targets: Sequence[Any], raws: Sequence[Any], most: int = 24) -> str:
    """Some drawings and what was asked for."""
    cells = "".join(
        f"<div>{model.modalities[stream].html(raw)}<br><small>{escape(str(target))}</small></div>"
        for raw, target in zip(raws[:most], targets)
    )
    return f"<h2>Drawn as asked</h2><div class=gallery>{cells}</div>"
