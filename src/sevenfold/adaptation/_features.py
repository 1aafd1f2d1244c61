"""Representations of samples, and what is known of them: what probes and neighbours are made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from sevenfold.adaptation.readout import Task
from sevenfold.assembly.model import Model, to_device
from sevenfold.assembly.pool import pool
from sevenfold.core.errors import BadSample
from sevenfold.core.part import decode
from sevenfold.core.types import Batch, Hidden
from sevenfold.data.loader import Items, gather
from sevenfold.objective.supervised import Supervised


class Features(NamedTuple):
    """Vectors x [n d] and targets y (ids [n], numbers or labels [n p]) of samples, or tokens, that could be read; why others could
    not."""

    x: np.ndarray
    y: np.ndarray
    bad: list[BadSample]


def batches(items: Items, size: int) -> Iterator[tuple[Batch | None, list[BadSample]]]:
    """Samples in their order, as they are (without views), some at a time."""
    views, items.views = items.views, False
    try:
        for start in range(0, len(items), size):
            batch, bad, _ = gather([items[0, place] for place in range(start, min(start + size, len(items)))])
            yield batch, bad
    finally:
        items.views = views


@torch.inference_mode()
def hidden_of(model: Model, batch: Batch, trunk: str) -> Hidden:
    """The representation of one trunk; those behind it are not run."""
    names = list(model.trunks.keys())
    place = names.index(trunk) + 1
    return model.earlier(to_device(batch, model.device), names[place] if place < len(names) else None)[trunk]


def vectors(model: Model, batch: Batch, trunk: str, how: str) -> np.ndarray:
    """[b d]: the pooled tokens of one trunk."""
    return pool(hidden_of(model, batch, trunk), how).float().cpu().numpy()


def asking(model: Model, target: str) -> Supervised:
    """What knows which targets of a batch there are, and which vectors a head of the model reads for them."""
    head = model.config.heads[target]
    how = head.pool if head.pool != "none" else "mean"
    config = decode(Supervised.Config, {"target": head.stream, "trunk": head.trunk, "pool": how}, "objective")
    made: Supervised = config.build(model)
    return made


def features(model: Model, items: Items, target: str, size: int = 64) -> Features:
    """What the head `target` of a model reads of all samples (or of all tokens, where each has a label) that have a target."""
    model.eval()
    objective, head = asking(model, target), model.config.heads[target]
    stream = objective.target
    x: list[np.ndarray] = []
    y: list[np.ndarray] = []
    bad: list[BadSample] = []
    for batch, wrong in batches(items, size):
        bad += wrong
        inputs = {} if batch is None else objective.reads(batch)
        if (
            batch is None
            or stream not in batch
            or not inputs
            or (objective.of is not None and objective.of not in batch)
        ):
            continue
        known, values = objective.known(batch), batch[stream].values
        hidden = hidden_of(model, inputs, objective.trunk)
        if objective.of is None:
            found, wanted = pool(hidden, head.pool), values[:, 0]
        else:
            front = len(model.modalities[objective.of].around()[0])
            found = hidden.of(objective.of).x[:, front : front + known.shape[1]]
            wanted = values[:, : known.shape[1]]
        x.append(found.float().cpu()[known].numpy())
        y.append(wanted[known].numpy())
    if not x:
        return Features(np.zeros((0, 1)), np.zeros(0), bad)
    return Features(np.concatenate(x), np.concatenate(y), bad)


def task_of(model: Model, target: str) -> Task:
    """What kind of answer a stream is."""
    tokenizer = model.modalities[target].tokenizer
    if tokenizer.binary:
        return "labels"
    return "classes" if tokenizer.size is not None else "numbers"


def remarks(found: Features, model: Model, target: str) -> list[str]:
    """What a person should know about targets: classes with one sample, samples that could not be read."""
    told = []
    if task_of(model, target) == "classes":
        piece = model.modalities[target].tokenizer.piece
        once = [piece(int(id)) for id, count in Counter(found.y.tolist()).items() if count == 1]
        if once:
            told.append(f"one training sample alone is of class {', '.join(map(repr, once[:5]))}")
    return told


def scored(task: Task, scores: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Terms of predictions, under the names that objectives give them."""
    if not len(y):
        return {}
    if task == "numbers":
        return {"mse": float(np.square(scores - y.reshape(len(y), -1)).mean())}
    if task == "labels":
        hits, every = 2 * float(((scores > 0.5) & (y > 0.5)).sum()), float((scores > 0.5).sum() + (y > 0.5).sum())
        return {"f1": hits / max(every, 1.0)}
    right = np.clip(scores[np.arange(len(y)), y], 1e-12, 1)
    return {"nats": -float(np.log(right).mean()), "accuracy": float((scores.argmax(1) == y).mean())}


def simple(task: Task, train: np.ndarray, y: np.ndarray) -> dict[str, dict[str, float]]:
    """What is reached without looking: the majority class, or the mean."""
    if not len(y) or not len(train):
        return {}
    if task == "numbers":
        mean = train.reshape(len(train), -1).mean(0)
        return {"mean": {"mse": float(np.square(y.reshape(len(y), -1) - mean).mean())}}
    if task == "labels":
        common = np.repeat((train.mean(0) > 0.5).astype(float)[None], len(y), 0)
        return {"labels that most have": scored(task, common, y)}
    return {"majority class": {"accuracy": float((y == np.bincount(train).argmax()).mean())}}
