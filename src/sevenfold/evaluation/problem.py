"""What is learned from and what is tested, as items and as arrays, for one target."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sevenfold.adaptation.readout import Task
from sevenfold.assembly.model import Model
from sevenfold.core.errors import ConfigError, DataError, did_you_mean
from sevenfold.core.part import find
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.bad import BadSamples
from sevenfold.data.source import SEQUENCES_AND_IMAGES, Source
from sevenfold.evaluation.asked import Asked
from sevenfold.evaluation.gathered import Gathered, Targets, checked, chosen, encoded, field_called, gather, task_of
from sevenfold.evaluation.leaks import Leaks, audit
from sevenfold.evaluation.parts import Parts
from sevenfold.evaluation.vectors import around, token_vectors, vectors
from sevenfold.training.prepare import field_of


class Problem(NamedTuple):
    """Items and what is asked of them.

    every, learn, valid, test  training items, those of them that are learned from, validation items (none where there are no
                               others than those to test on), test items
    task, by_token             what is asked, and whether of each token
    known                      which rows (items, or tokens laid end to end) of `learn` and `test` have a target
    targets                    of the known rows
    owner                      what each known test row belongs to; None: each to itself
    """

    parts: Parts
    every: Gathered
    learn: Gathered
    valid: Gathered
    test: Gathered
    task: Task
    by_token: bool
    known: tuple[np.ndarray, np.ndarray]
    targets: Targets
    owner: np.ndarray | None
    bad: BadSamples
    asked: Asked

    @property
    def columns(self) -> int:
        return len(self.targets.names)

    @property
    def notes(self) -> list[str]:
        """What must be said of the items."""
        notes = list(self.targets.notes)
        lost = self.every.without + self.test.without
        if lost:
            notes.append(
                f"{self.every.without:,} training and {self.test.without:,} test items have no {self.asked.target!r}: left out"
            )
        if len(self.learn.raws) < len(self.every.raws):
            notes.append(
                f"read-out and baselines learn from {len(self.learn.raws):,} of {len(self.every.raws):,} training items"
            )
        if len(self.bad):
            where, why = self.bad.first(1)[0]
            notes.append(f"{len(self.bad):,} items could not be read, the first is {where}: {why}")
        return notes


class Table(NamedTuple):
    """What is read of the items: a row each for those to learn from, to validate on and to test on."""

    learn: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def streams_of(model: Model, source: Source, asked: Asked, target: str) -> dict[str, str]:
    """Stream → field of what the model is given: all that its trunks read, or those asked for; never the target."""
    fed = [name for name in model.modalities if any(name in t.inputs for t in model.config.trunks.values())]
    for name in asked.streams:
        if name not in fed:
            raise ConfigError(f"streams: no trunk of the model reads {name!r}{did_you_mean(name, fed)}")
    found, missed = {}, []
    for name in asked.streams or fed:
        try:
            field = field_of(name, model.config.streams[name], source.fields)
        except ConfigError as error:
            if asked.streams:
                raise
            missed.append(error)
            continue
        if field != target:
            found[name] = field
    if not found:
        raise missed[0] if missed else ConfigError(f"target: the model reads nothing but {target!r}")
    return found


def problem(model: Model, found: Parts, asked: Asked) -> Problem:
    """The items of each part, read; ConfigError or DataError, one line, where there is nothing to measure."""
    assert asked.target is not None
    target, bad = field_called(found.source, asked.target, "target"), BadSamples(1.0)
    field_called(found.tested, target, "target")
    if asked.group is not None:
        field_called(found.tested, asked.group, "group")
    fields = streams_of(model, found.source, asked, target)
    theirs = fields if found.tested is found.source else streams_of(model, found.tested, asked, target)
    kind = asked.target_kind or _kind(model, found.source, target)
    check = checked(kind)
    every = gather(model, found.source, found.train, fields, target, check, None, bad)
    valid = gather(model, found.source, found.valid, fields, target, check, None, bad)
    test = gather(model, found.tested, found.test, theirs, target, check, asked.group, bad)
    for part, what, count in ((every, "training", len(found.train)), (test, "test", len(found.test))):
        if not part.raws:
            why = "" if not len(bad) else "; {} cannot be read, the first is {}: {}".format(len(bad), *bad.first(1)[0])
            raise DataError(f"target {target!r}: none of {count:,} {what} items has one{why}")
    task, by_token = _task(model, kind, target, every)
    learn = every.take(chosen(every.targets, asked.most, asked.per_class, asked.seed))
    owner = None if test.groups is None else np.array(test.groups)
    if not by_token:
        known = np.ones(len(learn.raws), bool), np.ones(len(test.raws), bool)
        targets = encoded(task, learn.targets, test.targets, target)
        return Problem(found, every, learn, valid, test, task, by_token, known, targets, owner, bad, asked)
    each = find("tokenization", "tags").Config().build().each
    letters = [[letter for some in part.targets for letter in each(some)] for part in (learn, test)]
    first, second = (np.array([letter is not None for letter in some]) for some in letters)
    known = first, second
    known[0][_beyond(known[0], asked.most)] = False
    clean = [[letter for letter, keep in zip(some, kept) if keep] for some, kept in zip(letters, known)]
    items = np.arange(len(test.raws)) if owner is None else owner
    owner = np.repeat(items, [len(some) for some in test.targets])[known[1]]
    targets = encoded(task, clean[0], clean[1], target)
    return Problem(found, every, learn, valid, test, task, by_token, known, targets, owner, bad, asked)


def _beyond(known: np.ndarray, most: int) -> np.ndarray:
    """Places of known tokens beyond `most`, evenly over all: those kept are from as many items as can be."""
    places = np.flatnonzero(known)
    kept = places[np.linspace(0, len(places) - 1, min(most, len(places))).astype(int)] if len(places) else places
    return np.setdiff1d(places, kept)


def _kind(model: Model, source: Source, target: str) -> str:
    """The kind of the target: that of the model's stream of that name, or what its field looks like."""
    named = [name for name, stream in model.config.streams.items() if (stream.field or name) == target]
    return model.config.streams[named[0]].kind if named else source.fields[target]


def _task(model: Model, kind: str, target: str, every: Gathered) -> tuple[Task, bool]:
    tokens = None
    if len(every.raws[0]) == 1:
        stream = next(iter(every.raws[0]))
        modality, less = model.modalities[stream], sum(around(model, every.raws[0]))
        tokens = [len(modality.tokens(item[stream], cut=False).values) - less for item in every.raws[:100]]
    return task_of(kind, target, every.targets, tokens)


def table(model: Model, of: Problem) -> Table:
    """The model's representation of every row."""

    def rows(part: Gathered, known: np.ndarray | None) -> np.ndarray:
        if not part.raws:
            return np.zeros((0, 1))
        if not of.by_token:
            return vectors(model, part.raws, of.asked.pool, of.asked.trunk)
        found = token_vectors(model, part.raws, of.asked.trunk)
        whole = [_filled(rows, len(letters)) for rows, letters in zip(found, part.targets)]
        return np.concatenate(whole)[known].astype(np.float64)

    valid = of.valid if not of.by_token else of.valid.take([])
    return Table(rows(of.learn, of.known[0]), rows(valid, None), rows(of.test, of.known[1]))


def _filled(rows: np.ndarray, count: int) -> np.ndarray:
    """As many rows as there are letters: an item that was cut to the model's length has zeros for the rest."""
    return rows if len(rows) == count else np.concatenate([rows[:count], np.zeros((count - len(rows), rows.shape[1]))])


def raw_tables(model: Model, of: Problem) -> list[tuple[str, Table, Any]]:
    """(name, raw features, scaling) for simple methods: each kind of those of the only stream; all of several together."""
    names = list(dict.fromkeys(name for item in of.learn.raws for name in item))
    if of.by_token:
        size = 7
        rows = [_windows(model, part, size)[known] for part, known in zip((of.learn, of.test), of.known)]
        return [(f"the {2 * size + 1} tokens around", Table(rows[0], np.zeros((0, 1)), rows[1]), "one")]
    found = []
    for name in names:
        here = [item[name] for item in of.learn.raws if name in item]
        for features in model.modalities[name].features(here):
            learn, test = (_features(features.of, part, name) for part in (of.learn, of.test))
            found.append((features.name, Table(learn, np.zeros((0, 1)), test), features.scaling))
    if len(names) < 2:
        return found
    learn, test = (np.concatenate([part[place] for _, part, _ in found], 1) for place in (0, 2))
    return [(f"raw features of {' and '.join(names)}", Table(learn, np.zeros((0, 1)), test), "each")]


def _features(of: Any, part: Gathered, name: str) -> np.ndarray:
    """[n d], zeros where an item has not that stream."""
    has = [place for place, item in enumerate(part.raws) if name in item]
    told = of([part.raws[place][name] for place in has]) if has else np.zeros((0, 1), np.float32)
    if len(has) == len(part.raws):
        return told
    found = np.zeros((len(part.raws), told.shape[1]), np.float32)
    found[has] = told
    return found


def _windows(model: Model, part: Gathered, size: int) -> np.ndarray:
    """[tokens d]: of each token, those up to `size` before and behind it, one-hot (or as vectors)."""
    found = []
    for item, letters in zip(part.raws, part.targets):
        stream = next(iter(item))
        before, behind = around(model, item)
        modality = model.modalities[stream]
        values = modality.tokens(item[stream], cut=False).values
        values = values[before : len(values) - behind]
        if values.ndim == 1:
            values = np.eye(modality.tokenizer.size or 1, dtype=np.float32)[values]
        padded = np.pad(values, ((size, size), (0, 0)))
        rows = [padded[shift : shift + len(values)] for shift in range(2 * size + 1)]
        found.append(_filled(np.concatenate(rows, 1), len(letters)))
    return np.concatenate(found)


def leaked(model: Model, of: Problem) -> Leaks:
    """What training items give away of test items: by what an item is about, as a source tells duplicates."""
    names = list(dict.fromkeys(name for item in of.test.raws for name in item))
    main = [name for name in names if model.config.streams[name].kind in SEQUENCES_AND_IMAGES] or names
    found: Leaks | None = None
    for name in main:
        train, test = ([place for place, item in enumerate(part.raws) if name in item] for part in (of.every, of.test))
        order = numpy_generator("audit", of.asked.seed).permutation(len(train))
        train = [train[place] for place in order]
        one = audit(
            model.modalities[name],
            [of.every.raws[place][name] for place in train],
            [of.test.raws[place][name] for place in test],
            ([of.every.where[place] for place in train], [of.test.where[place] for place in test]),
        )
        one = one._replace(tested=len(of.test.raws), found=[leak._replace(test=test[leak.test]) for leak in one.found])
        found = one if found is None else found.joined(one)
    assert found is not None
    return found


def rows_of(items: np.ndarray, of: Problem) -> np.ndarray:
    """Which known test rows are of none of some test items."""
    lengths = [len(some) if of.by_token else 1 for some in of.test.targets]
    item = np.repeat(np.arange(len(of.test.raws)), lengths)[of.known[1]]
    return np.flatnonzero(~np.isin(item, items))
