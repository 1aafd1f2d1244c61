"""The card without a target: the loss and its terms on items that were never trained on, beside what trivial methods reach.

    bits per byte = nats per token * tokens / bytes / ln 2          comparable between tokenizers
    perplexity    = exp(nats per token)                             comparable only with one tokenizer

Batches are what is resampled: windows of a text and the rows of a contrast hang together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sevenfold.adaptation._task import data_of
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.files import read_json
from sevenfold.core.types import Loss
from sevenfold.data.bad import BadSamples
from sevenfold.data.loader import Items, Samples
from sevenfold.data.source import Source
from sevenfold.evaluation.asked import Asked
from sevenfold.evaluation.card import MODEL, TWIN, Card
from sevenfold.evaluation.interval import Drawn, beside, picks, sentence
from sevenfold.evaluation.parts import Data, named, one_recipe, settings_for, unchanged
from sevenfold.evaluation.vectors import twin
from sevenfold.modality import Modality
from sevenfold.objective import Objective
from sevenfold.training.finish import BEGUN, RESULTS, baselines
from sevenfold.training.laid_out import laid_out
from sevenfold.training.load import load_objective, located, objective_of
from sevenfold.training.look import held_out_losses, means
from sevenfold.training.prepare import fields_of, items_of, prepare
from sevenfold.training.recipe import Recipe, device_of, read_recipe
from sevenfold.training.run import data_hash
from sevenfold.training.start import going_on

RISING = ("accuracy", "recall", "r2", "rank")
"""Terms with such names are better if larger; others are losses."""


class Measured(NamedTuple):
    """One run: its loss on each batch, that of its twin, and what trivial methods reach."""

    losses: list[Loss]
    twin: list[Loss]
    baselines: dict[str, dict[str, float]]
    objective: Objective
    items: Items
    bad: BadSamples
    told: str
    notes: list[str]


def card(runs: list[str], data: Data | None, asked: Asked) -> Card:
    """What one run or several seeds reach on the held-out part (the figures of results.json), or on other data of the same fields;
    what a published model reaches on the held-out part of other data, by the objective of its family.

    Raises CheckpointError for a run that is not whole, DataError for data that cannot be used or has changed.
    """
    recipe = one_recipe(runs)
    found = [
        _of_model(run, data, asked) if recipe is None else _of_run(located(run), read_recipe(located(run)), data, asked) for run in runs
    ]  # fmt: skip
    first = found[0]
    draws = picks(len(first.losses), None, asked.seed) if len(first.losses) > 1 else []
    rows = {MODEL: _drawn([one.losses for one in found], draws)}
    for name, reached in first.baselines.items():
        every = [one.baselines.get(name, {}) for one in found]
        rows[name] = {
            term: _fixed([one[term] for one in every], len(draws))
            for term in reached
            if all(one.get(term) is not None for one in every)
        }
    rows[TWIN] = _drawn([one.twin for one in found], draws)
    for stream, term, scale in _bytes(first.objective, first.items):
        for terms in rows.values():
            if term in terms:
                one = terms[term]
                terms[f"{stream}: bits per byte"] = Drawn(one.values * scale, one.draws * scale, one.fixed)
                terms[f"{stream}: perplexity"] = Drawn(np.exp(one.values), np.exp(one.draws), one.fixed)
    main = _main(rows)
    metric: Any = _Term(not main.rpartition("/")[2].startswith(RISING))
    known = {name: terms[main] for name, terms in rows.items() if main in terms}
    against = beside(metric, known, MODEL)
    figures = {name: {term: one.figure for term, one in terms.items()} for name, terms in rows.items()}
    told = (
        ""
        if against is None
        else sentence(main, figures[MODEL][main], against, figures[against.against][main], "batches")
    )
    bad, notes = first.bad, [*first.notes, *asked.note]
    if len(bad):
        where, why = bad.first(1)[0]
        notes.insert(0, f"{len(bad):,} more could not be read, the first is {where}: {why}")
    return Card(
        name=asked.name or "held_out",
        runs=tuple(runs),
        data=first.told,
        samples={"tested": len(first.items) - len(bad), "unreadable": len(bad)},
        how={"by": "the objective"},
        metric=main,
        rows=figures,
        beside=against,
        told=told,
        notes=tuple(notes),
    )


class _Term(NamedTuple):
    """What `beside` asks of a metric."""

    smaller_is_better: bool

    @property
    def larger_is_better(self) -> bool:
        return not self.smaller_is_better


def _drawn(seeds: list[list[Loss]], draws: list[np.ndarray]) -> dict[str, Drawn]:
    """Term → what each seed reaches, over all batches and over draws of them."""
    found = {}
    for term, value in means(seeds[0]).items():
        values = [means(losses).get(term, math.nan) for losses in seeds]
        found[term] = Drawn(
            np.array([value, *values[1:]]), np.array([_resampled(losses, term, draws) for losses in seeds])
        )
    return found


def _resampled(losses: list[Loss], term: str, draws: list[np.ndarray]) -> np.ndarray:
    parts = [(one.total, one.count) if term == "loss" else one.terms.get(term, (0.0, 0.0)) for one in losses]
    total, count = (np.array([float(part[place]) for part in parts]) for place in (0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.array([total[index].sum() / count[index].sum() for index in draws])


def _fixed(values: list[float], draws: int) -> Drawn:
    """What a baseline reaches, of which there is no more than the figure."""
    return Drawn(np.array(values), np.repeat(np.array(values)[:, None], draws, 1), fixed=True)


def _main(rows: Mapping[str, Mapping[str, Drawn]]) -> str:
    """The term that the sentence is about: the first that a baseline has too, apart from the loss, which may hold more."""
    others = [terms for name, terms in rows.items() if name not in (MODEL, TWIN)]
    own = [term for term in rows[MODEL] if term != "loss"]
    return next((term for term in own if any(term in terms for terms in others)), "loss")


def _twins(objective: Objective, recipe: Recipe, chosen: Samples, asked: Asked) -> list[Loss]:
    """The losses of the same objective on first weights."""
    with torch.random.fork_rng(devices=[]):
        other = objective_of(recipe.objective, twin(objective.model, asked.seed))
        other.settle()
    return held_out_losses(other.to(device_of(None)), chosen, recipe.train, recipe.seed)


def _of_run(folder: Path, recipe: Recipe, data: Data | None, asked: Asked) -> Measured:
    objective = load_objective(folder)
    settings = recipe.data if data is None else settings_for(str(folder), data, asked.split)
    source = settings.build()
    if data is None:
        unchanged(recipe, source, folder)
    own = data is None or data_hash(source) == read_json(folder / BEGUN).get("data")
    bad = BadSamples(recipe.data.bad_share)
    train, held_out = source.split()
    test = source.test() if own else []
    items = _items(recipe, source, objective, test or (held_out if own else sorted([*train, *held_out])))
    device = device_of(recipe.train.device if _there(recipe.train.device) else None)
    chosen = laid_out(recipe, items, bad, objective.model.modalities)
    losses = held_out_losses(objective.to(device), chosen, recipe.train, recipe.seed, bad=bad)
    if not losses:
        raise DataError(f"{named(settings)}: none of its {len(items)} samples can be read: {bad.first(1)}")
    beside, notes = _baselines(folder, recipe, objective, items, own and not test)
    part = "the test part" if test else "the held-out part" if own else "all"
    return Measured(
        losses,
        _twins(objective, recipe, chosen, asked),
        beside,
        objective,
        items,
        bad,
        f"{part} of {named(settings)}",
        notes,
    )


def _of_model(start: str, data: Data | None, asked: Asked) -> Measured:
    """A model that is no run of ours, on the held-out part of other data; baselines learn from the rest."""
    if data is None:
        raise ConfigError(
            f"{start}: keeps no data to evaluate on: name a file or folder (sevenfold evaluate {start} DATA)"
        )
    ready = prepare(read_recipe(going_on(start, data_of(data))))
    objective, recipe = ready.objective, ready.recipe
    losses = held_out_losses(objective.to(device_of(None)), ready.held_out, recipe.train, recipe.seed, bad=ready.bad)
    if not losses:
        raise DataError(
            f"{named(recipe.data)}: none of its {len(ready.held_out_items)} held-out samples can be read: {ready.bad.first(1)}"
        )
    twins = _twins(objective, recipe, ready.held_out, asked)
    beside = baselines(objective.to("cpu"), ready.train_items, ready.held_out_items, ready.batch)
    return Measured(
        losses,
        twins,
        beside,
        objective,
        ready.held_out_items,
        ready.bad,
        f"the held-out part of {named(recipe.data)}",
        [],
    )


def _there(device: str | None) -> bool:
    return device is None or not device.startswith("cuda") or torch.cuda.is_available()


def _items(recipe: Recipe, source: Source, objective: Objective, indices: list[int]) -> Items:
    modalities = objective.model.modalities
    fields = fields_of(recipe, source.fields)
    return items_of(recipe, source, indices, modalities, fields, looks=objective.looks(), aligned=objective.aligned())


def _baselines(
    folder: Path, recipe: Recipe, objective: Objective, items: Items, own: bool
) -> tuple[dict[str, Any], list[str]]:
    """As results.json has them; for other data, made from the run's training items, if these are still there."""
    if own and (folder / RESULTS).is_file():
        return read_json(folder / RESULTS)["baselines"], []
    try:
        source = recipe.data.build()
        train = _items(recipe, source, objective, source.split()[0])
    except DataError as error:
        return {}, [f"no baselines: the data of the run cannot be read ({error})"]
    return baselines(objective.to("cpu"), train, items, recipe.train.batch or 32), []


def _bytes(objective: Objective, items: Items) -> list[tuple[str, str, float]]:
    """(stream, term, what its nats times are bits per byte) of the streams of text that are predicted token by token."""
    found = []
    for stream, term in objective.likelihoods().items():
        modality = objective.model.modalities[stream]
        tokens, size = _sizes(items, stream, modality) if modality.tokenizer.axes == 1 else (0, 0)
        if size:
            found.append((stream, term, tokens / size / math.log(2)))
    return found


def _sizes(items: Items, stream: str, modality: Modality) -> tuple[int, int]:
    """Tokens to predict (the begin token is not one) and UTF-8 bytes of a stream's strings."""
    tokens = size = 0
    begun = int(modality.config.ends or modality.config.begin is not None)
    field = items.encoders[stream][0]
    for index in items.indices:
        try:
            raw = items.source[index].get(field)
            if isinstance(raw, str):
                count = len(modality.tokens(raw, cut=False).values)
                tokens, size = tokens + count - begun, size + len(raw.encode())
        except (DataError, ValueError):
            continue
    return tokens, size
