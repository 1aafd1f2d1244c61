"""What a model says of new samples: classes with probabilities, labels, numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sevenfold.adaptation._features import asking, task_of, vectors
from sevenfold.adaptation._folder import memory_of, record_of
from sevenfold.adaptation._task import data_of
from sevenfold.adaptation._towers import Tower, towered
from sevenfold.adaptation.method.test_time import TestTimeWay
from sevenfold.adaptation.method.zero_shot import softmax
from sevenfold.adaptation.readout import Task, knn
from sevenfold.assembly.model import Model, ModelConfig, to_device
from sevenfold.core import part
from sevenfold.core.errors import BadSample, ConfigError, DataError
from sevenfold.data.source import Source
from sevenfold.training.load import load, load_objective, located
from sevenfold.training.prepare import field_of


class Predicted(NamedTuple):
    """What was said of samples.

    target   the name of what is predicted
    classes  what the columns of scores stand for; None for numbers
    where    file and offset of each sample
    values   what is said of each: a class, a tuple of labels, a number
    scores   of each sample [c] probabilities of classes or labels, or [p] numbers; [n c] where each of its tokens is answered for
    bad      (where, why) of samples that could not be read
    """

    target: str
    classes: list[str] | None
    where: list[str]
    values: list[Any]
    scores: list[np.ndarray]
    bad: list[tuple[str, str]]


class Ways(NamedTuple):
    """How a folder answers: the streams that it reads, and raw samples (stream → raw item) → scores."""

    target: str
    streams: list[str]
    task: Task
    classes: list[str] | None
    ask: Callable[[Sequence[dict[str, Any]]], Sequence[np.ndarray]]
    raw: Callable[[np.ndarray], Any]


def predict(run: str | Path, data: str | Path | Mapping[str, Any] | Source.Config, batch: int = 64) -> Predicted:
    """What an adapted or supervised run (or a published classifier) says of every sample of some data.

    ConfigError for a model that predicts no label or number, DataError for data that does not have what it reads.
    """
    folder = located(run)
    model = load(run)
    way = way_of(folder, model, str(run))
    source = data_of(data, str(run)).build()
    fields = {name: field_of(name, model.config.streams[name], source.fields) for name in way.streams}
    where: list[str] = []
    scores: list[np.ndarray] = []
    bad: list[tuple[str, str]] = []
    for start in range(0, len(source), batch):
        samples, places = [], []
        for index in range(start, min(start + batch, len(source))):
            try:
                sample = source[index]
                given = {name: sample.get(field) for name, field in fields.items()}
                if all(raw is None for raw in given.values()):
                    raise BadSample(source.where(index), "holds none of the streams")
                for name, raw in given.items():
                    if raw is not None:
                        model.modalities[name].tokens(raw)
                samples.append(given)
                places.append(source.where(index))
            except BadSample as error:
                bad.append((error.where, error.why))
            except ValueError as error:
                bad.append((source.where(index), str(error).splitlines()[0]))
        if samples:
            scores += list(way.ask(samples))
            where += places
    if not scores:
        raise DataError(
            f"{source.config.path or source.kind}: no sample can be read"
            + (f"; the first is {bad[0][0]}: {bad[0][1]}" if bad else "")
        )
    return Predicted(way.target, way.classes, where, [way.raw(row) for row in scores], scores, bad)


def way_of(folder: Path, model: Model, name: str) -> Ways:
    """How the model of a folder answers, by what was adapted in it or by its head. ConfigError where it says nothing."""
    record = record_of(folder)
    kind = None if record is None else record["method"]["kind"]
    if record is not None and kind == "zero_shot":
        return _by_names(folder, model, record)
    if record is not None and kind == "knn":
        return _by_neighbours(folder, model, record)
    target = predicted_head(model.config, name)
    head = model.config.heads[target]
    if record is not None and kind == "test_time":
        config = part.decode(part.find("method", "test_time").Config, record["method"], str(folder))
        way = TestTimeWay(load_objective(folder), head.trunk, target, config)
        return _ways(model, target, lambda raws: list(way(_batch(way.model, raws), [config.steps])[config.steps]))
    return _ways(model, target, lambda raws: _by_head(model, target, raws))


def answered(folder: Path, config: ModelConfig, name: str) -> str | None:
    """What the model of a folder answers for, as `way_of` would say, without reading weights. ConfigError where it says nothing."""
    record = record_of(folder)
    kind = None if record is None else record["method"]["kind"]
    if record is not None and kind in ("zero_shot", "knn"):
        found: str = record["target" if kind == "zero_shot" else "stream"]
        return found
    return config.heads[predicted_head(config, name)].stream


def predicted_head(config: ModelConfig, name: str) -> str:
    """The head that says something of a stream that no trunk reads. ConfigError where there is none, or several."""
    read = {given for trunk in config.trunks.values() for given in (*trunk.inputs, trunk.condition)}
    found = [head for head, told in config.heads.items() if told.stream is not None and told.stream not in read]
    if len(found) != 1:
        raise ConfigError(
            f"predict: {name} predicts no label or number; give it a head first: sevenfold adapt {name} DATA --method probe"
            if not found else f"predict: {name} has several heads: {', '.join(found)}"
        )  # fmt: skip
    return found[0]


def _ways(model: Model, head: str, ask: Callable[[Sequence[dict[str, Any]]], Sequence[np.ndarray]]) -> Ways:
    stream = model.config.heads[head].stream
    assert stream is not None
    read = {given for trunk in model.config.trunks.values() for given in trunk.inputs}
    task, modality = task_of(model, stream), model.modalities[stream]
    classes = None if task == "numbers" else [modality.tokenizer.piece(id) for id in range(asking(model, head).outputs)]

    def raw(scores: np.ndarray) -> Any:
        return modality.raw(np.atleast_1d(scores.argmax(-1)) if task == "classes" else scores[None].astype(np.float32))

    return Ways(stream, [name for name in model.config.streams if name in read], task, classes, ask, raw)


def _batch(model: Model, raws: Sequence[dict[str, Any]]) -> Any:
    return to_device(model.tokenize(raws), model.device)


@torch.inference_mode()
def _by_head(model: Model, head: str, raws: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    """[c] of each sample, or [n c] where every token is answered for."""
    objective, batch = asking(model, head), _batch(model, raws)
    guess = objective.answer(model(objective.reads(batch))).double()
    done = guess.softmax(-1) if objective.discrete else guess.sigmoid() if objective.binary else guess
    rows = list(done.cpu().numpy())
    if objective.of is None:
        return rows
    given, around = batch[objective.of], sum(map(len, model.modalities[objective.of].around()))
    lengths = [given.values.shape[1]] * len(rows) if given.valid is None else given.valid.sum(1).tolist()
    return [row[: max(length - around, 0)] for row, length in zip(rows, lengths)]


def _by_neighbours(folder: Path, model: Model, record: dict[str, Any]) -> Ways:
    memory, method, target = memory_of(folder), record["method"], record["stream"]
    task, modality = task_of(model, target), model.modalities[target]
    near = knn(memory["vectors"], memory["targets"], task, k=method["k"], temperature=method["temperature"])
    ids = range(modality.tokenizer.size or 0) if near.classes is None else near.classes
    classes = None if task == "numbers" else [modality.tokenizer.piece(int(id)) for id in ids]

    def ask(raws: Sequence[dict[str, Any]]) -> list[np.ndarray]:
        return list(near.scores(vectors(model, _batch(model, raws), record["trunk"], record["pool"])))

    def raw(scores: np.ndarray) -> Any:
        if near.classes is not None:
            return modality.raw(np.array([near.classes[scores.argmax()]]))
        return modality.raw(scores[None].astype(np.float32))

    read = {given for trunk in model.config.trunks.values() for given in trunk.inputs}
    return Ways(target, [name for name in model.config.streams if name in read], task, classes, ask, raw)


def _by_names(folder: Path, model: Model, record: dict[str, Any]) -> Ways:
    memory, classes = memory_of(folder), record["classes"]
    tower = Tower(record["trunk"], record["stream"], record["head"])

    def ask(raws: Sequence[dict[str, Any]]) -> list[np.ndarray]:
        x = towered(model, tower, [raw[tower.stream] for raw in raws])
        return list(softmax(float(memory["scale"][0]) * x @ memory["classes"].T))

    return Ways(record["target"], [tower.stream], "classes", classes, ask, lambda scores: classes[int(scores.argmax())])
