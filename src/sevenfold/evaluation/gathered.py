"""Items of a part of some data, with what is asked of them; what cannot be used is counted and said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sevenfold.adaptation.readout import Task
from sevenfold.assembly.model import Model
from sevenfold.blocks.tokenization.category import label_of
from sevenfold.core.errors import BadSample, ConfigError, DataError
from sevenfold.core.part import find
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.bad import BadSamples
from sevenfold.data.source import Source

MISSING = ("", "?")
"""What stands where a label is not known."""


class Gathered(NamedTuple):
    """Items that can be used.

    raws     stream → checked raw item, one dict each
    targets  what is asked of each
    groups   what each belongs to; None: each to itself
    where    the place of each in its source
    without  how many have no target
    """

    raws: list[dict[str, Any]]
    targets: list[Any]
    groups: list[str] | None
    where: list[str]
    without: int

    def take(self, places: Sequence[int]) -> Gathered:
        return Gathered(
            [self.raws[place] for place in places],
            [self.targets[place] for place in places],
            None if self.groups is None else [self.groups[place] for place in places],
            [self.where[place] for place in places],
            self.without,
        )


def gather(
    model: Model, source: Source, indices: Sequence[int], fields: Mapping[str, str], target: str, check: Callable[[Any], Any],
    group: str | None, bad: BadSamples,
) -> Gathered:  # fmt: skip
    """Items of a source whose target is known (`check` refuses one that is none) and of which the model can make tokens.
    `fields`: stream → field."""
    found = Gathered([], [], None if group is None else [], [], 0)
    without = 0
    for index in indices:
        try:
            sample = source[index]
            raws = {}
            for stream, field in fields.items():
                if sample.get(field) is not None:
                    raws[stream] = model.modalities[stream].check(sample[field])
                    model.modalities[stream].tokens(raws[stream])
            if not raws:
                raise BadSample(source.where(index), f"has none of the streams {', '.join(fields)}")
            known = not missing(sample.get(target))
            asked = check(sample[target]) if known else None
        except BadSample as error:
            bad.note(error)
            continue
        except ValueError as error:
            bad.note(BadSample(source.where(index), str(error).splitlines()[0]))
            continue
        if not known:
            without += 1
            continue
        found.raws.append(raws)
        found.targets.append(asked)
        found.where.append(source.where(index))
        if found.groups is not None:
            found.groups.append(str(sample.get(group or "", source.where(index))))
    return found._replace(without=without)


def missing(target: Any) -> bool:
    """Whether a target is not known."""
    if isinstance(target, float | np.floating):
        return not np.isfinite(target)
    return target is None or (isinstance(target, str) and target.strip() in MISSING)


def field_called(source: Source, name: str, what: str) -> str:
    """A field of the data; ConfigError if there is none."""
    if name not in source.fields:
        raise ConfigError(f"{what}: {source.no_field(name)}")
    return name


def checked(kind: str) -> Callable[[Any], Any]:
    """What brings a target of some kind of field into its form; ValueError for one that is none."""
    modality = find("modality", kind)
    return modality.Config().build().check if modality.task is not None else lambda raw: raw


def task_of(kind: str, target: str, targets: Sequence[Any], tokens: Sequence[int] | None) -> tuple[Task, bool]:
    """(the task, whether it is asked of each token) of a field of some kind. `tokens`: how many each item has."""
    task = find("modality", kind).task
    if task is not None:
        return ("classes", True) if task == "tokens" else (task, False)
    strings = all(isinstance(one, str) for one in targets)
    if strings and tokens is not None and all(len(one) == count for one, count in zip(targets, tokens)):
        return "classes", True
    if strings and len(set(targets)) <= max(2, len(targets) // 10):
        return "classes", False
    raise ConfigError(
        f"target: {target!r} holds {kind}, neither labels nor numbers, nor a letter for each token: name another field"
    )


class Targets(NamedTuple):
    """Targets of a training and a test part as arrays.

    y          [n] columns of the classes, [n c] of 0 and 1, or [n p] numbers
    names      of the columns; those from `known` on were never seen in training
    """

    train: np.ndarray
    test: np.ndarray
    names: list[str]
    known: int
    notes: list[str]


def encoded(task: Task, train: Sequence[Any], test: Sequence[Any], target: str) -> Targets:
    """Targets as numbers, with what must be said of them. DataError if there is nothing to tell apart."""
    if task == "numbers":
        return _numbers(train, test, target)
    if task == "labels":
        return _labels(train, test)
    train, test = [label_of(one) for one in train], [label_of(one) for one in test]
    counts = Counter(train)
    names = sorted(counts, key=_order)
    if len(names) < 2:
        only = f"all {len(train):,} training items are {names[0]!r}" if names else "no training item has one"
        raise DataError(f"target {target!r}: {only}: there is nothing to tell apart")
    unseen = sorted(set(test) - set(names), key=_order)
    notes, single = [], [name for name in names if counts[name] == 1]
    if single:
        notes.append(f"{_listed(single)}: {'a class' if len(single) == 1 else 'classes'} with one training item")
    if unseen:
        count = sum(one in unseen for one in test)
        notes.append(
            f"{count:,} test items are of classes never seen in training ({_listed(unseen)}): counted as wrong"
        )
    place = {name: column for column, name in enumerate([*names, *unseen])}
    x, y = (np.array([place[one] for one in some], np.int64) for some in (train, test))
    return Targets(x, y, [str(name) for name in place], len(names), notes)


def _numbers(train: Sequence[Any], test: Sequence[Any], target: str) -> Targets:
    try:
        x, y = (np.array([np.ravel(one) for one in some], np.float64) for some in (train, test))
    except ValueError:
        raise DataError(f"target {target!r}: holds what is no number, or not as many in each item") from None
    notes = [] if len(x) and np.ptp(x, 0).any() else [f"all training items have the same {target!r}"]
    return Targets(x, y, [target], 1, notes)


def _labels(train: Sequence[Any], test: Sequence[Any]) -> Targets:
    train, test = ([_has(one) for one in some] for some in (train, test))
    names = sorted({label_of(one) for some in train for one in some}, key=_order)
    unseen = sorted({label_of(one) for some in test for one in some} - set(names), key=_order)
    place = {name: column for column, name in enumerate([*names, *unseen])}
    found = []
    for part in (train, test):
        y = np.zeros((len(part), len(place)), np.int64)
        for row, some in zip(y, part):
            row[[place[label_of(one)] for one in some]] = 1
        found.append(y)
    notes = [f"labels never seen in training, counted as missed: {_listed(unseen)}"] if unseen else []
    return Targets(found[0], found[1], [str(name) for name in place], len(names), notes)


def _has(labels: Any) -> Sequence[Any]:
    """The labels of an item; of an array of 0 and 1, their places."""
    return np.flatnonzero(labels).tolist() if isinstance(labels, np.ndarray) else labels


def _order(label: str | int) -> tuple[bool, Any]:
    return isinstance(label, str), label


def _listed(names: Sequence[Any], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def chosen(targets: Sequence[Any], most: int, per_class: int | None, seed: int) -> list[int]:
    """Places of at most `most` items, at most `per_class` of each class, by a draw of the seed; in their order."""
    order = numpy_generator("training items", seed).permutation(len(targets)).tolist()
    kept: list[int] = []
    counts: Counter[Any] = Counter()
    for place in order:
        if len(kept) == most:
            break
        if per_class is not None:
            if counts[str(targets[place])] == per_class:
                continue
            counts[str(targets[place])] += 1
        kept.append(place)
    return sorted(kept)
