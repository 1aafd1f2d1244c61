"""Measuring a run: the figures on its held-out part again, or on other data, beside what trivial methods reach.

bits per byte = nats per token * tokens / bytes / ln 2          comparable between tokenizers
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.files import read_json
from sevenfold.data.bad import BadSamples
from sevenfold.data.loader import Items
from sevenfold.data.recognise import recognise
from sevenfold.data.source import Source
from sevenfold.modality import Modality
from sevenfold.objective import Objective
from sevenfold.training.finish import BEGUN, RESULTS, baselines
from sevenfold.training.fit import evaluate
from sevenfold.training.load import load_objective, located
from sevenfold.training.prepare import fields_of, items_of, laid_out, prepare
from sevenfold.training.recipe import Recipe, device_of, read_recipe
from sevenfold.training.run import data_hash
from sevenfold.training.start import going_on


def evaluate_run(folder: str | Path, data: str | Path | None = None) -> dict[str, Any]:
    """What a run reaches on its own held-out part (the figures of results.json), or on another file of the same fields; what a
    published model reaches on the held-out part of other data, by the objective of its family.

    terms          loss and its terms
    baselines      name → the same terms for trivial methods, learned from the run's training items
    bits_per_byte  name → stream → bits, where streams of text are predicted token by token
    samples        how many samples it is over; with bad: how many could not be read, and the first few
    data           what they are

    Raises CheckpointError for a run that is not whole, DataError for data that cannot be used or has changed.
    """
    name, folder = str(folder), located(folder)
    if not (folder / "recipe.yaml").is_file():
        return _of_model(name, data)
    objective, recipe = load_objective(folder), read_recipe(folder)
    settings = recipe.data if data is None else _settings(recipe, Path(data))
    source = settings.build()
    stored = read_json(folder / BEGUN).get("data")
    own = data is None or data_hash(source) == stored
    if data is None and data_hash(source) != stored:
        raise DataError(f"{recipe.data.path}: has changed since {folder} was trained, so the figures would not compare")
    bad = BadSamples(recipe.data.bad_share)
    train, held_out = source.split()
    items = _items(recipe, source, objective, held_out if own else sorted([*train, *held_out]))
    device = device_of(recipe.train.device if _there(recipe.train.device) else None)
    chosen = laid_out(recipe, items, bad, objective.model.modalities)
    terms = evaluate(objective.to(device), chosen, recipe.train, recipe.seed, bad=bad)
    if not terms:
        raise DataError(f"{settings.path}: none of its {len(items)} samples can be read: {bad.first(1)}")
    beside = _baselines(folder, recipe, objective, items, own)
    every = {"this model": terms, **beside}
    return {
        "run": str(folder),
        "data": f"the held-out part of {_name(settings)}" if own else f"all of {_name(settings)}",
        "samples": len(items) - len(bad),
        "bad": {"count": len(bad), "first": bad.first(5)},
        "terms": terms,
        "baselines": beside,
        "bits_per_byte": _bits(objective, items, every),
    }


def _of_model(start: str, data: str | Path | None) -> dict[str, Any]:
    """The figures of a model that is no run of ours, on the held-out part of other data; baselines learn from the rest."""
    if data is None:
        raise ConfigError(f"{start}: is a model without data of its own: name a file or folder to evaluate it on")
    ready = prepare(read_recipe(going_on(start, recognise(data))))
    recipe, held_out = ready.recipe, ready.held_out_items
    terms = evaluate(ready.objective.to(device_of(None)), ready.held_out, recipe.train, recipe.seed, bad=ready.bad)
    if not terms:
        raise DataError(f"{data}: none of its {len(held_out)} held-out samples can be read: {ready.bad.first(1)}")
    beside = baselines(ready.objective.to("cpu"), ready.train_items, held_out, ready.batch)
    return {
        "run": start,
        "data": f"the held-out part of {data}",
        "samples": len(held_out) - len(ready.bad),
        "bad": {"count": len(ready.bad), "first": ready.bad.first(5)},
        "terms": terms,
        "baselines": beside,
        "bits_per_byte": _bits(ready.objective, held_out, {"this model": terms, **beside}),
    }


def _settings(recipe: Recipe, path: Path) -> Source.Config:
    """How to read other data: as the run's own were read, if they are of the same kind."""
    found = recognise(path)
    return recipe.data.replace(path=str(path), limit=None) if found.kind == recipe.data.kind else found


def _name(settings: Source.Config) -> str:
    return settings.path or f"the {settings.kind}"


def _there(device: str | None) -> bool:
    return device is None or not device.startswith("cuda") or torch.cuda.is_available()


def _items(recipe: Recipe, source: Source, objective: Objective, indices: list[int]) -> Items:
    modalities = objective.model.modalities
    fields = fields_of(recipe, source.fields)
    return items_of(recipe, source, indices, modalities, fields, looks=objective.looks(), aligned=objective.aligned())


def _baselines(folder: Path, recipe: Recipe, objective: Objective, items: Items, own: bool) -> dict[str, Any]:
    """As results.json has them; for other data, made from the run's training items, if these are still there."""
    if own and (folder / RESULTS).is_file():
        return read_json(folder / RESULTS)["baselines"]
    try:
        source = recipe.data.build()
        train = _items(recipe, source, objective, source.split()[0])
    except DataError:
        return {}
    return baselines(objective.to("cpu"), train, items, recipe.train.batch or 32)


def _bits(objective: Objective, items: Items, every: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Name → stream → bits per byte, for the streams of text that are predicted token by token."""
    found: dict[str, dict[str, float]] = {}
    for stream, term in objective.likelihoods().items():
        modality = objective.model.modalities[stream]
        if modality.tokenizer.axes != 1:
            continue
        tokens, size = _sizes(items, stream, modality)
        for name, terms in every.items():
            if size and terms.get(term) is not None:
                found.setdefault(name, {})[stream] = terms[term] * tokens / size / math.log(2)
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
