"""From a file and a time budget to a recipe: what the data is decides the kind of model, what time allows its size.

    F = minutes x 60 x (operations/s measured here) x utilisation;   tokens D = F / 6N;   the largest N with D >= 20 N
    that the data can feed (at most 16 passes)

The rule of 20 tokens a parameter: Hoffmann 2022, arXiv:2203.15556. Steps are then set by timing a few real ones.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sevenfold.core import part
from sevenfold.core.errors import BadSample, ConfigError, DataError
from sevenfold.data.loader import Order, load
from sevenfold.data.recognise import recognise, survey
from sevenfold.data.source import Source
from sevenfold.modality import Modality
from sevenfold.training.fit import evaluate, take_step
from sevenfold.training.precision import peak_flops, resolve
from sevenfold.training.prepare import Ready, prepare
from sevenfold.training.recipe import Recipe, device_of
from sevenfold.training.run import Run, Say, train

LADDER = ((64, 2), (96, 3), (128, 4), (192, 4), (256, 6), (384, 6), (512, 8), (768, 12), (1024, 16))
"""(width, depth) of the models that are considered."""
UTILISATION = 0.25
PASSES = 16
SAMPLES = 400
"""Samples that are looked at for lengths and coverage."""
TIMED = 2000
"""Samples that the timed steps are made on."""
MOST_PASSES = 200
"""More passes over a small set would only learn it by heart."""
SHARE_OF_TIME = 0.85
"""What is left is for the held-out looks, checkpoints and the report."""


class Plan(NamedTuple):
    """A recipe, and why it is as it is: one line each."""

    recipe: Recipe
    found: list[str]
    reasons: list[str]


def pretrain(
    path: str | Path, minutes: float = 5.0, out: str | Path | None = None, *, seed: int = 0, say: Say = print,
    bar: bool | None = None,
) -> Run:  # fmt: skip
    """From a file or folder of data to a trained model: plan, say why, train; returns the run.

    Nothing in it is a special case: it writes a recipe and calls `train`.
    """
    made = plan(path, minutes, seed=seed)
    for line in (*made.found, "", *made.reasons, ""):
        say(line)
    name = Path(path).expanduser().resolve().name.partition(".")[0] or "data"
    return train(made.recipe, out, say=say, bar=bar, name=name)


def plan(path: str | Path, minutes: float = 5.0, *, seed: int = 0) -> Plan:
    """The recipe for the data at `path` (a file or folder) and a time budget in minutes.

    Raises DataError for data that cannot be read or has nothing to learn from, ConfigError for a budget out of range.
    """
    if not 0 < minutes <= 60 * 24 * 365:
        raise ConfigError(f"minutes: above 0 and at most a year, not {minutes}")
    data = recognise(path)
    source = data.build()
    facts = survey(source)
    if not facts["train"] or not facts["held_out"]:
        raise DataError(f"{path}: holds too few samples that can be read to train on some and hold out others")
    streams, reasons = _streams(source)
    draft = _draft(source, data, streams, seed, reasons)
    recipe = _sized(draft, source, minutes, reasons)
    recipe, ready = _timed(recipe, minutes, reasons)
    return Plan(recipe, [*_found(facts, source), *_coverage(ready)], reasons)


# What the data is
def _streams(source: Source) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The streams to learn from, by the kinds of the data's fields."""
    by_kind: dict[str, list[str]] = {}
    for field, kind in source.fields.items():
        by_kind.setdefault(kind, []).append(field)
    used: dict[str, dict[str, Any]] = {}
    for kind in ("image", "text", "dna", "protein"):
        if kind in by_kind:
            field = (
                max(by_kind[kind], key=lambda name: _length(source, name))
                if len(by_kind[kind]) > 1
                else by_kind[kind][0]
            )
            used[field] = {"kind": kind}
            if kind in ("dna", "protein"):
                used = {field: {"kind": kind}}
                break
    if not used:
        raise DataError(
            f"{source.config.path}: its fields are {dict(source.fields)}; a model can be pretrained on text, images, dna "
            "and proteins"
        )
    left = [field for field in source.fields if field not in used]
    reasons = [f"left out for now: {', '.join(left)} (name them in a recipe's streams to use them)"] if left else []
    return used, reasons


def _length(source: Source, field: str) -> float:
    return float(np.mean([len(str(raw)) for raw in _some(source, field)] or [0]))


def _some(source: Source, field: str) -> list[Any]:
    """Raw items of some training samples."""
    indices, _ = source.split()
    found = []
    for index in indices[:: max(1, len(indices) // SAMPLES)]:
        try:
            raw = source[index].get(field)
        except BadSample:
            continue
        if raw is not None:
            found.append(raw)
    return found


# What to learn
def _draft(
    source: Source, data: Any, streams: dict[str, dict[str, Any]], seed: int, reasons: list[str]
) -> dict[str, Any]:
    """A recipe but for its size and steps, as plain data."""
    kinds = {stream["kind"]: name for name, stream in streams.items()}
    recipe: dict[str, Any] = {"data": part.encode(data), "streams": streams, "seed": seed}
    if {"image", "text"} <= kinds.keys():
        return _pairs(recipe, source, kinds["image"], kinds["text"], reasons)
    if "image" in kinds:
        return _pictures(recipe, source, kinds["image"], reasons)
    name, kind = next((name, kind) for kind, name in kinds.items())
    if kind == "protein":
        return _proteins(recipe, name, reasons)
    return _sequence(recipe, source, name, kind, reasons)


def _sequence(recipe: dict[str, Any], source: Source, name: str, kind: str, reasons: list[str]) -> dict[str, Any]:
    raws = _some(source, name)
    total = sum(map(len, raws)) / max(len(raws), 1) * len(source)
    if kind == "dna":
        tokenizer: Any = {"kind": "kmer", "k": 1}
        reasons.append("tokens are single bases: nothing is lost, and bits per base can be read off")
        length = 512
    else:
        size = int(min(8192, max(512, 2 ** round(np.log2(max(total / 300, 1))))))
        tokenizer = {"kind": "bpe", "size": size}
        reasons.append(f"byte-pair tokens, {size} of them: about one for every 300 of {total:,.0f} characters")
        length = 256
    recipe["streams"][name] |= {"tokenizer": tokenizer, "length": length, "pack": True}
    block = {"mixer": "attention", "nonlinearity": "swiglu", "norm": "rms"}
    pattern: Any = [{**block, "mixer": {"kind": "conv", "kernel": 9}}, block] if kind == "dna" else block
    recipe["trunks"] = {"lm": {"inputs": [name], "mask": {"causal": True}, "position": "rotary", "block": pattern}}
    recipe["objective"] = {"kind": "next_token"}
    recipe["train"] = {"batch_tokens": 8192}
    reasons.append(
        "the next token is predicted: such a model continues a sequence, and its loss says how well it knows the data"
    )
    return recipe


def _proteins(recipe: dict[str, Any], name: str, reasons: list[str]) -> dict[str, Any]:
    recipe["streams"][name] |= {"tokenizer": "residue", "length": 256, "pack": True}
    block = {"mixer": "attention", "nonlinearity": "gelu", "norm": "layer"}
    recipe["trunks"] = {"enc": {"inputs": [name], "position": "rotary", "block": block}}
    recipe["objective"] = {"kind": "masked_token"}
    recipe["train"] = {"batch_tokens": 8192}
    reasons.append("hidden residues are filled in from both sides (as ESM-2): what embeddings of proteins are made by")
    return recipe


def _grid(source: Source, name: str) -> tuple[int, int, int]:
    """(side, patch, channels): patches that make about 64 tokens of a picture."""
    shapes = [np.asarray(raw).shape for raw in _some(source, name)]
    if not shapes:
        raise DataError(f"{source.config.path}: no picture in it can be read")
    height, width = shapes[0][:2]
    channels = shapes[0][2] if len(shapes[0]) > 2 else 1
    common = [size for size in range(1, min(height, width) + 1) if height % size == 0 and width % size == 0]
    patch = min(common, key=lambda size: abs(np.log((height * width / size**2) / 64)))
    return max(height, width), patch, channels


def _pictures(recipe: dict[str, Any], source: Source, name: str, reasons: list[str]) -> dict[str, Any]:
    side, patch, channels = _grid(source, name)
    recipe["streams"][name] |= {"tokenizer": {"kind": "patch", "patch": patch}}
    reasons.append(f"patches of {patch} x {patch} pixels: about 64 tokens for pictures of side {side}")
    position = {"kind": "learned", "size": max(16, -(-side // patch))}
    recipe["trunks"] = {
        "enc": {"inputs": [name], "class_token": True, "position": position},
        "dec": {"inputs": ["enc"], "position": position},
    }
    recipe["objective"] = {"kind": "mae", "ratio": 0.75 if side // patch >= 6 else 0.5}
    recipe["train"] = {"batch": 64}
    reasons.append("hidden patches are rebuilt from the visible ones (masked autoencoding): it needs no labels")
    return recipe


def _pairs(recipe: dict[str, Any], source: Source, image: str, text: str, reasons: list[str]) -> dict[str, Any]:
    recipe = _pictures(recipe, source, image, reasons)
    reasons.pop()
    total = sum(len(str(raw)) for raw in _some(source, text)) / SAMPLES * len(source)
    size = int(min(8192, max(300, 2 ** round(np.log2(max(total / 300, 1))))))
    recipe["streams"][text] |= {"tokenizer": {"kind": "bpe", "size": size}}
    recipe["trunks"] = {
        "v": recipe["trunks"]["enc"],
        "t": {"inputs": [text], "position": "rotary"},
    }
    recipe["objective"] = {"kind": "infonce", "trunks": ["v", "t"]}
    reasons.append(
        "pictures and their words are brought together (contrast, as CLIP): one can then be found by the other"
    )
    return recipe


# How large, how long
def _sized(draft: dict[str, Any], source: Source, minutes: float, reasons: list[str]) -> Recipe:
    device = device_of(None)
    rate = peak_flops(device, resolve("auto", device, 256))
    budget = minutes * 60 * rate * UTILISATION
    tokens = _tokens_of(draft, source)
    fitting = LADDER[0]
    for width, depth in LADDER:
        weights = 12 * width**2 * depth
        if min(budget / (6 * weights), PASSES * tokens) >= 20 * weights:
            fitting = width, depth
    width, depth = fitting
    if "dec" in draft["trunks"]:
        width, depth = max(fitting[0], 96), max(fitting[1], 3)
    for name, trunk in draft["trunks"].items():
        small = name == "dec"
        trunk |= {"width": max(48, width // 2) if small else width, "depth": max(1, depth // 3) if small else depth}
        if isinstance(trunk.get("block"), list) and depth % 2:
            trunk["depth"] = depth + 1
    draft["train"]["optimizer"] = {"kind": "adamw", "lr": round(2e-3 * (128 / width) ** 0.5, 5)}
    reasons.append(
        f"width {width}, depth {depth}: about {12 * width**2 * depth / 1e6:.1f} M weights in blocks, for {tokens / 1e6:.1f} M "
        f"tokens of data and {minutes:g} minutes at {rate / 1e9:.0f} GFLOP/s (measured)"
    )
    return part.decode(Recipe, draft, "plan")


def _tokens_of(draft: dict[str, Any], source: Source) -> float:
    """About how many training tokens the data holds."""
    total = 0.0
    for name, stream in draft["streams"].items():
        raws = _some(source, name)
        if not raws:
            continue
        if stream["kind"] == "image":
            patch = stream["tokenizer"]["patch"]
            per_item = float(np.mean([np.asarray(raw).shape[0] * np.asarray(raw).shape[1] / patch**2 for raw in raws]))
        else:
            per_item = float(np.mean([len(raw) for raw in raws])) / (3 if stream["kind"] == "text" else 1)
        total += per_item * len(source)
    return total


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
    if len(ready.source) < TIMED:
        steps = min(steps, max(300, round(MOST_PASSES * len(ready.train) / ready.batch)))
    reasons.append(f"{steps} steps of {ready.batch} items: a step takes {second:.3f} s here")
    return recipe.replace(train=recipe.train.replace(steps=steps)), ready


def _time(ready: Ready, minutes: float) -> tuple[int, float]:
    """(steps that fit, seconds of one), by making a few real ones."""
    settings = ready.recipe.train
    objective = ready.objective.to(device_of(settings.device)).train()
    trainable = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    optimizer = settings.optimizer.build(trainable)
    times: list[float] = []
    began = time.perf_counter()
    for batch, _, _ in load(ready.train, Order(len(ready.train), ready.batch, 0, 0, 12), 0):
        clock = time.perf_counter()
        if batch is not None:
            take_step(objective, optimizer, batch, settings, settings.precision, 0, len(times), 0.01)
        times.append(time.perf_counter() - clock)
        if time.perf_counter() - began > 12 * minutes:
            break
    clock = time.perf_counter()
    evaluate(objective, ready.held_out, settings, 0, 1)
    looks = 10 * settings.evaluate_batches * (time.perf_counter() - clock)
    second = float(np.median(times[2:] or times))
    return max(10, int(max(60 * minutes * SHARE_OF_TIME - looks, second) / second)), second


# What is said
def _found(facts: dict[str, Any], source: Source) -> list[str]:
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
