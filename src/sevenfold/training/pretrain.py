"""From a file and a time budget to a recipe: what the data is decides the kind of model, what time allows its size.

    the largest model that the planner finds for this machine, these minutes and what there is of data

How it is found is in sevenfold.training.plan. Steps are then set by timing a few real ones.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sevenfold.core import part
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds
from sevenfold.data.loader import Order, load
from sevenfold.data.recognise import recognise, some, survey
from sevenfold.data.source import Source
from sevenfold.modality import Modality, Suggestion
from sevenfold.training.estimate import shape
from sevenfold.training.hardware import Hardware
from sevenfold.training.look import evaluate
from sevenfold.training.parallel import first_here
from sevenfold.training.plan import SHARE_OF_TIME, choose, resized
from sevenfold.training.prepare import Ready, prepare
from sevenfold.training.recipe import Recipe, TrainConfig, device_of, read_recipe
from sevenfold.training.run import Run, Say, train
from sevenfold.training.start import going_on
from sevenfold.training.step import take_step

BEGIN = (384, 6)
"""Width and depth that a recipe is drafted with; trunks that read another one have half of it, and a third."""
SMALLEST = (96, 3)
"""Width and depth where time is too short for the rule of 20 tokens a weight."""
SAMPLES = 400
"""Samples that are looked at for lengths and coverage."""
TIMED = 2000
"""Samples that the timed steps are made on."""
MOST_PASSES = 200
"""More passes over a small set would only learn it by heart."""
FEWEST_STEPS = 150
"""With fewer, batches are made smaller; with fewer still, more time is asked for."""
SMALLEST_BATCH = 8
"""What is left is for the held-out looks, checkpoints and the report."""


class Planned(NamedTuple):
    """A recipe, and why it is as it is: one line each."""

    recipe: Recipe
    found: list[str]
    reasons: list[str]


def pretrain(
    path: str | Path, minutes: float = 5.0, out: str | Path | None = None, *, start: str | Path | None = None, target: str | None = None,
    seed: int = 0, say: Say = print, bar: bool | None = None,
) -> Run:  # fmt: skip
    """From a file or folder of data to a trained model: plan, say why, train; returns the run.

    start   a run folder, a published folder or the id of one: its training is continued on this data
    target  a field, or a column of a table, that is to be predicted later: nothing is learned from it

    Nothing in it is a special case: it writes a recipe and calls `train`.
    """
    made = planned(path, minutes, start=start, target=target, seed=seed)
    for line in (*made.found, "", *made.reasons, "") if first_here() else ():
        say(line)
    name = Path(path).expanduser().resolve().name.partition(".")[0] or "data"
    return train(made.recipe, out, say=say, bar=bar, name=name)


def planned(
    path: str | Path, minutes: float = 5.0, *, start: str | Path | None = None, target: str | None = None, seed: int = 0
) -> Planned:
    """The recipe for the data at `path` (a file or folder) and a time budget in minutes; of the wiring that `start` has, if
    given; nothing is learned from the field `target`.

    Raises DataError for data that cannot be read or has nothing to learn from, ConfigError for a budget out of range.
    """
    if not 0 < minutes <= 60 * 24 * 365:
        raise ConfigError(f"minutes: above 0 and at most a year, not {minutes}")
    data = recognise(path)
    source = data.build()
    if target is not None and target not in source.fields:
        if "target" not in type(data).model_fields:
            raise ConfigError(f"target: {source.no_field(target)}")
        data = data.replace(target=target)  # a column of rows
        source = data.build()
    facts = survey(source)
    if facts["bad"]["count"] == facts["samples"] > 0:
        raise DataError(
            "none of {:,} samples can be read; the first is {}: {}".format(facts["samples"], *facts["bad"]["first"][0])
        )
    if not facts["train"] or not facts["held_out"]:
        raise DataError(f"{path}: holds too few samples that can be read to train on some and hold out others")
    reasons: list[str] = []
    if start is not None:
        recipe = read_recipe(going_on(str(start), data, reasons) | {"seed": seed})
    else:
        draft, tokens = _draft(source, data, target, seed, reasons)
        recipe = _sized(draft, tokens, minutes, reasons)
    recipe, ready = _timed(recipe, minutes, reasons)
    return Planned(recipe, [*_found(facts), *_coverage(ready)], reasons)


# What the data is, and what to learn from it
def _draft(
    source: Source, data: Any, target: str | None, seed: int, reasons: list[str]
) -> tuple[dict[str, Any], float]:
    """(a recipe but for its sizes and steps, as plain data; about how many tokens the data holds).

    Every field's modality suggests how to learn from it. Two that can stand beside each other are brought together by
    contrast; otherwise the one with the most to learn from is taken.
    """
    offers: dict[str, Suggestion] = {}
    for field, kind in source.fields.items():
        raws = [] if field == target else some(source, field, SAMPLES)
        offer = find("modality", kind).suggest(field, raws, len(source)) if kind in kinds("modality") and raws else None
        if offer is not None:
            offers[field] = offer
    if not offers:
        raise DataError(
            f"{source.config.path}: its fields are {dict(source.fields)}; a model can be pretrained on {_suggesting()}"
        )
    pair = _pair(offers, source)
    used = pair or [max(offers, key=lambda field: (offers[field].tower is None, offers[field].tokens))]
    left = [field for field in source.fields if field not in used]
    if left:
        reasons.append(f"left out for now: {', '.join(left)} (name them in a recipe's streams to use them)")
    tokens = sum(offers[field].tokens for field in used) * len(source)
    recipe: dict[str, Any] = {"data": part.encode(data), "seed": seed}
    if not pair:
        only = offers[used[0]]
        reasons.extend(only.why)
        held = source.prepared.stream if source.prepared is not None else {}
        made = {
            "streams": {used[0]: only.stream | held},
            "trunks": only.trunks,
            "objective": only.objective,
            "train": only.train,
        }
        return recipe | made, tokens
    towers = {f"{field}_tower": offers[field].tower for field in pair}
    reasons += [offers[field].why[0] for field in pair]
    reasons.append(f"{' and '.join(pair)} are brought together (contrast, as CLIP): one can then be found by the other")
    streams = {field: {**offers[field].stream, "length": None, "pack": False} for field in pair}
    objective = {"kind": "infonce", "trunks": list(towers)}
    return recipe | {"streams": streams, "trunks": towers, "objective": objective, "train": {"batch": 64}}, tokens


def _suggesting() -> str:
    """The modalities that suggest how to learn from them, in words."""
    silent = Modality.suggest.__qualname__
    own = [kind for kind in kinds("modality") if find("modality", kind).suggest.__qualname__ != silent]
    return f"{', '.join(own[:-1])} and {own[-1]}"


def _pair(offers: dict[str, Suggestion], source: Source) -> list[str] | None:
    """Two fields of different modalities that can stand beside each other, if there are such."""
    standing: dict[str, str] = {}
    for field in sorted(offers, key=lambda name: -offers[name].tokens):
        if offers[field].tower is not None:
            standing.setdefault(source.fields[field], field)
    both = list(standing.values())[:2]
    return both if len(both) == 2 else None


# How large, how long
def _sized(draft: dict[str, Any], tokens: float, minutes: float, reasons: list[str]) -> Recipe:
    width, depth = BEGIN
    first = next(iter(draft["trunks"]))
    for name, trunk in draft["trunks"].items():
        light = name != first and first in trunk["inputs"]
        trunk |= {"width": width // 2 if light else width, "depth": depth // 3 if light else depth}
    draft["train"]["evaluate_batches"] = 2
    recipe = part.decode(Recipe, draft, "plan")
    ready, hardware = prepare(_part_of(recipe)), Hardware.here(device_of(recipe.train.device))
    chosen = choose(ready, hardware, shape(ready), recipe.train.precision, 60 * minutes, None, tokens)
    width, depth = SMALLEST if chosen is None else max((chosen.width, chosen.depth), SMALLEST)
    recipe = resized(recipe, width, depth)
    settings = {**draft["train"], "optimizer": {"kind": "muon", "lr": round(4e-3 * (128 / width) ** 0.5, 5)}}
    if chosen is not None and chosen.accumulate > 1:
        settings["accumulate"] = chosen.accumulate
    reasons.append(
        f"width {width}, depth {depth}: about {12 * width**2 * depth / 1e6:.1f} M weights in blocks, for {tokens / 1e6:.1f} M "
        f"tokens of data and {minutes:g} minutes at {hardware.fp32 / 1e9:.0f} GFLOP/s (measured)"
    )
    return recipe.replace(train=part.decode(TrainConfig, settings, "plan: train"))


def within(recipe: Recipe, minutes: float) -> Recipe:
    """The recipe with at most as many steps as fit into `minutes` here."""
    ready = prepare(_part_of(recipe))
    return recipe.replace(train=recipe.train.replace(steps=min(recipe.train.steps, _time(ready, minutes)[0])))


def _part_of(recipe: Recipe) -> Recipe:
    """The recipe on at most TIMED samples."""
    return recipe.replace(data=recipe.data.replace(limit=min(recipe.data.limit or TIMED, TIMED)))


def _timed(recipe: Recipe, minutes: float, reasons: list[str]) -> tuple[Recipe, Ready]:
    """The recipe with as many steps as fit, and the part of it that was timed."""
    ready = prepare(_part_of(recipe))
    steps, second = _time(ready, minutes)
    batch = ready.batch
    while steps < FEWEST_STEPS and batch >= 2 * SMALLEST_BATCH:
        steps, second, batch = 2 * steps, second / 2, batch // 2
    if len(ready.source) < TIMED:
        steps = min(steps, max(300, round(MOST_PASSES * len(ready.train) / batch)))
    reasons.append(f"{steps} steps of {batch} items: a step takes {second:.3f} s here")
    if steps < FEWEST_STEPS:
        reasons.append(f"so few steps teach little: give it {minutes * FEWEST_STEPS / steps:.1g} minutes or more")
    settings = recipe.train.replace(steps=steps, batch=batch, batch_tokens=None)
    return recipe.replace(train=settings), ready


def _time(ready: Ready, minutes: float) -> tuple[int, float]:
    """(steps that fit, seconds of one), by making a few real ones."""
    settings = ready.recipe.train
    objective = ready.objective.to(device_of(settings.device)).train()
    trainable = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    optimizer = settings.optimizer.build(trainable, objective.cares())
    times: list[float] = []
    order = Order(len(ready.train), ready.batch, 0, 0, 12, arranged=ready.train.arranged)
    began = time.perf_counter()
    for batch, _, _ in load(ready.train, order, 0):
        clock = time.perf_counter()
        if batch is not None:
            take_step(objective, optimizer, batch, settings, settings.precision, 0, len(times), 0.01)
        times.append(time.perf_counter() - clock)
        if time.perf_counter() - began > 12 * minutes:
            break
    clock = time.perf_counter()
    evaluate(objective, ready.held_out, settings, 0, 1)
    last = len(ready.held_out) / ready.batch
    looks = (10 * min(settings.evaluate_batches, last) + last) * (time.perf_counter() - clock)
    second = float(np.percentile(times[2:] or times, 75))
    budget = 60 * minutes * SHARE_OF_TIME
    return max(10, int(max(budget - looks, budget / 2) / second)), second


# What is said
def _found(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"{facts['path']}: read as {facts['kind']}; {facts['samples']:,} samples, {facts['train']:,} to train on, "
        f"{facts['held_out']:,} held out; fields: "
        + ", ".join(f"{name} ({kind})" for name, kind in facts["fields"].items())
    ]
    lines += [str(note) for note in facts["notes"]]
    twice = facts["duplicates"]
    lines.append(
        f"duplicates: {twice['train']:,} within the training samples, {twice['held_out_in_train']:,} between held-out and training"
    )
    if facts["bad"]["count"]:
        where, why = facts["bad"]["first"][0]
        lines.append(f"cannot be read: {facts['bad']['count']:,} samples (skipped); the first is {where}: {why}")
    return lines


def _coverage(ready: Ready) -> list[str]:
    """What is in the raw items, and how the tokenizers do on held-out ones."""
    lines, samples = [], ready.samples(SAMPLES)
    for name, modality in ready.model.modalities.items():
        raws = [sample[name] for sample in ready.samples(SAMPLES, held_out=False) if sample.get(name) is not None]
        told = "; ".join(f"{fact} {value}" for fact, value in modality.summary(raws).items())
        lines.append(f"{name} ({modality.kind}), of {len(raws)} training items: {told}")
        lines.append(f"{name}: {_covered(modality, [s[name] for s in samples if s.get(name) is not None])}")
    return lines


def _covered(modality: Modality, raws: list[Any]) -> str:
    tokenizer, tokens, unknown, exact = modality.tokenizer, [], 0, 0
    for raw in raws:
        try:
            ids = tokenizer.encode(modality.check(raw)).values
        except ValueError:
            continue
        tokens.append(len(ids))
        if tokenizer.size is not None:
            unknown += int((ids == tokenizer.specials.get("unk", -1)).sum())
            exact += isinstance(raw, str) and tokenizer.decode(ids) == raw
    if not tokens:
        return f"the {tokenizer.kind} tokenizer covers none of the held-out items"
    size = f"{tokenizer.size} ids" if tokenizer.size is not None else f"vectors of {tokenizer.features}"
    told = f"{tokenizer.kind} tokenizer, {size}; held out: {np.mean(tokens):,.1f} tokens an item"
    if tokenizer.size is None:
        return told
    share = 100 * unknown / max(sum(tokens), 1)
    whole = f", {100 * exact / len(tokens):.1f} % of items come back exactly" if isinstance(raws[0], str) else ""
    return f"{told}, {share:.2f} % unknown{whole}"
