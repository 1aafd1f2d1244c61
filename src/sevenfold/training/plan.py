"""The largest model that a budget of time and memory holds, found by formula: nothing is run, nothing large is allocated.

    seconds a step (sevenfold.training.estimate) x steps <= budget;   tokens a step x steps >= 20 N;   peak <= memory

The rule of 20 tokens a parameter: Hoffmann 2022, arXiv:2203.15556. Widths and depths are those of a ladder; batches are
taken in more pieces before anything is made smaller, as that changes no result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sevenfold.assembly.cost.tokens import full_lengths
from sevenfold.assembly.model import Model
from sevenfold.core.errors import ConfigError
from sevenfold.modality import Modality
from sevenfold.objective import Objective
from sevenfold.training.estimate import Estimate, Shape, estimate, shape, table
from sevenfold.training.hardware import Hardware
from sevenfold.training.load import models_of, objective_of
from sevenfold.training.prepare import Ready, prepare
from sevenfold.training.recipe import Recipe, read_recipe
from sevenfold.training.units import bytes_of, seconds_of

LADDER = (
    (48, 2), (64, 2), (96, 3), (128, 4), (192, 4), (256, 6), (384, 6), (512, 8), (768, 12), (1024, 16), (1280, 20),
    (1536, 24), (2048, 24), (2560, 32), (3072, 36), (4096, 36),
)  # fmt: skip
"""(width, depth) of the models that are considered; trunks beside the first keep their share of it."""
TOKENS_A_WEIGHT = 20
PASSES = 16
"""More passes over the data teach little more (Muennighoff 2023, arXiv:2305.16264)."""
SHARE_OF_TIME = 0.85
"""Of a budget that goes into steps; the rest is for the held-out looks, checkpoints and the report."""


class Plan(NamedTuple):
    """What a recipe needs. Where a budget was given: the recipe that fits it, and what was traded for that, a line each."""

    recipe: Recipe
    estimate: Estimate
    hardware: Hardware
    traded: list[str]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dict per part: parameters, FLOPs forward and backward, bytes kept, bytes of cache, seconds."""
        return table(self.estimate)

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return self.recipe.train.steps * (self.estimate.seconds or 0.0)


class Choice(NamedTuple):
    """A size that fits: the first trunk's width and depth, how a batch is taken, and how many steps there is time for."""

    width: int
    depth: int
    batch: int
    accumulate: int
    steps: int | None
    estimate: Estimate


def plan(
    recipe: str | Path | dict | Recipe | Ready,
    hardware: Hardware | str | None = None,
    *,
    budget: float | str | None = None,
    memory: float | str | None = None,
) -> Plan:
    """What a recipe needs by formula, part by part; with a `budget` (seconds, or "90s", "30m", "2h", "1d") or `memory`
    (bytes, or "500MB", "8GB", "8GiB") the recipe changed to the largest model that fits.

    hardware   what it is trained on: a Hardware, "a100", "h100", "h200", or by default this machine, measured

    Raises ConfigError where even the smallest model of the ladder does not fit, or a budget is none.
    """
    seconds = None if budget is None else seconds_of(budget)
    limit = None if memory is None else bytes_of(memory)
    on = Hardware.named(hardware or "here") if hardware is None or isinstance(hardware, str) else hardware
    asked = recipe.recipe if isinstance(recipe, Ready) else read_recipe(recipe)
    return plan_of(recipe if isinstance(recipe, Ready) else prepare(asked), on, asked.train.precision, seconds, limit)


def plan_of(ready: Ready, hardware: Hardware, precision: str, seconds: float | None, memory: int | None) -> Plan:
    """As `plan`, of a recipe that has been made real; `precision` is what was asked for, maybe auto."""
    given, recipe = shape(ready), ready.recipe
    if seconds is None and memory is None:
        return Plan(
            recipe,
            estimate(ready.objective, given, recipe.train, _precision(precision, hardware, recipe), hardware),
            hardware,
            [],
        )
    chosen = choose(ready, hardware, given, precision, seconds, memory)
    if chosen is None:
        held = [f"{seconds:,.0f} s"] if seconds is not None else []
        held += [f"{memory:,} bytes"] if memory is not None else []
        smallest = min((LADDER[0], _size(recipe)), key=lambda size: size[0] ** 2 * size[1])
        raise ConfigError(
            f"{' and '.join(held)} on {hardware.name}: not enough for the smallest model (width {smallest[0]}, depth "
            f"{smallest[1]}): give more time or memory"
        )
    changed = fitted(recipe, chosen, precision)
    return Plan(changed, chosen.estimate, hardware, [*_traded(recipe, changed), *_passes(ready, changed)])


def of_run(recipe: Recipe, objective: Objective, hardware: Hardware) -> Plan:
    """What the recipe of a finished run needs, for items of full length."""
    lengths = full_lengths(objective.model)
    given = Shape(lengths, frozenset(), 16 * sum(lengths.values()))
    precision = _precision(recipe.train.precision, hardware, recipe)
    return Plan(recipe, estimate(objective, given, recipe.train, precision, hardware), hardware, [])


def _size(recipe: Recipe) -> tuple[int, int]:
    first = next(iter(recipe.trunks.values()))
    return first.width, first.depth


def choose(
    ready: Ready,
    hardware: Hardware,
    given: Shape,
    precision: str,
    seconds: float | None,
    memory: int | None,
    tokens: float | None = None,
) -> Choice | None:
    """The largest size on the ladder (the recipe's own is on it too) that fits into seconds and bytes; None if none does.

    tokens   of the data: 16 passes over them bound the size too; None: they do not
    """
    recipe, limit = ready.recipe, hardware.memory if memory is None else memory
    row = sum(given.lengths[name] for name in given.lengths if _read(recipe, name))
    fed = math.inf if tokens is None else PASSES * tokens
    for width, depth in sorted({*LADDER, _size(recipe)}, key=lambda size: -(size[0] ** 2 * size[1])):
        about = 12 * width**2 * depth / 4  # weights, and room for blocks with fewer
        rate = max(hardware.fp32, hardware.bf16 or 0.0)
        slow = seconds is not None and 6 * TOKENS_A_WEIGHT * about**2 > seconds * rate
        if slow or TOKENS_A_WEIGHT * about > fed or 12 * about > limit:
            continue  # far too large: not even built
        try:
            sized = resized(recipe, width, depth)
            objective = on_meta(sized, ready.model.modalities)
        except ConfigError:
            continue  # a part does not come in this width
        taken = _taken(objective, sized, given, _precision(precision, hardware, sized), hardware, limit)
        if taken is None:
            continue
        batch, accumulate, found = taken
        if seconds is None:
            return Choice(width, depth, batch, accumulate, None, found)
        steps = int(SHARE_OF_TIME * seconds / (found.seconds or 1.0))
        weights = sum(item.trained for item in found.costs if ".blocks." in item.place)
        if steps >= 1 and min(steps * batch * row, fed) >= TOKENS_A_WEIGHT * weights:
            return Choice(width, depth, batch, accumulate, steps, found)
    return None


def _taken(
    objective: Objective, recipe: Recipe, given: Shape, precision: str, hardware: Hardware, limit: int
) -> tuple[int, int, Estimate] | None:
    """(batch, pieces, estimate) within the limit: the batch in as few pieces as do, a smaller one where pieces would
    change what is learned."""
    batch, pieces = recipe.train.batch or 32, 1
    while True:
        settings = recipe.train.replace(batch=batch, batch_tokens=None, accumulate=pieces)
        found = estimate(objective, given, settings, precision, hardware)
        if found.peak <= limit:
            return batch, pieces, found
        splits = objective.decomposable or objective.cached
        if splits and pieces < batch:
            pieces = min(2 * pieces, batch)
        elif not splits and batch > 2:
            batch //= 2
        else:
            return None


def on_meta(recipe: Recipe, modalities: Mapping[str, Modality]) -> Objective:
    """The objective of a complete recipe, its weights on the device "meta": shapes without numbers."""
    config, models = recipe.wiring, models_of(recipe.objective)
    with torch.device("meta"):
        return objective_of(recipe.objective, Model(config, modalities), models)


def resized(recipe: Recipe, width: int, depth: int) -> Recipe:
    """The recipe with its first trunk of that width and depth, the others in proportion; heads keep their width."""
    first = next(iter(recipe.trunks.values()))
    trunks = {}
    for name, trunk in recipe.trunks.items():
        wide = width if trunk is first else max(16, round(trunk.width * width / first.width / 16) * 16)
        deep = max(1, round(trunk.depth * depth / max(first.depth, 1))) if trunk.depth else 0
        if trunk is first:
            deep = depth
        pattern = trunk.block if isinstance(trunk.block, tuple) else (trunk.block,)
        deep = -(-deep // len(pattern)) * len(pattern)
        blocks = tuple(_with_heads(block, trunk.width, wide) for block in pattern)
        same = (wide, deep) == (trunk.width, trunk.depth)
        block = blocks if isinstance(trunk.block, tuple) else blocks[0]
        trunks[name] = trunk if same else trunk.replace(width=wide, depth=deep, block=block)
    return recipe.replace(trunks=trunks)


def _with_heads(block: Any, old: int, new: int) -> Any:
    changes = {}
    for name in ("mixer", "cross"):
        config = getattr(block, name)
        heads = getattr(config, "heads", None)
        if not heads or new == old or "heads" not in type(config).model_fields:
            continue
        many = max(1, round(heads * new / old))
        many = None if new % many or (new // many) % 2 else many
        more: dict[str, Any] = {"heads": many}
        if shared := getattr(config, "kv_heads", None):
            more["kv_heads"] = (
                max(1, many * shared // heads) if many and not many % max(1, many * shared // heads) else None
            )
        changes[name] = config.replace(**more)
    return block.replace(**changes) if changes else block


def fitted(recipe: Recipe, chosen: Choice, precision: str | None = None) -> Recipe:
    """The recipe of that size."""
    settings = recipe.train.replace(batch=chosen.batch, batch_tokens=None, accumulate=chosen.accumulate)
    if precision is not None:
        settings = settings.replace(precision=precision)
    if chosen.steps is not None:
        settings = settings.replace(steps=chosen.steps, evaluate_every=None, save_every=None)
    return resized(recipe, chosen.width, chosen.depth).replace(train=settings)


def _traded(before: Recipe, after: Recipe) -> list[str]:
    """What differs in size, a line each."""
    said = []
    for name, trunk in before.trunks.items():
        new = after.trunks[name]
        for field in ("width", "depth"):
            if getattr(trunk, field) != getattr(new, field):
                said.append(f"trunks.{name}.{field} {getattr(trunk, field)} -> {getattr(new, field)}")
        if (a := _heads(trunk)) != (b := _heads(new)):
            said.append(f"trunks.{name}: heads {a} -> {b}")
    for field in ("batch", "accumulate", "steps"):
        old, now = getattr(before.train, field), getattr(after.train, field)
        if old != now:
            said.append(f"train.{field} {old} -> {now}")
    return said


def _passes(ready: Ready, recipe: Recipe) -> list[str]:
    """Whether the data are seen more often than teaches much."""
    passes = recipe.train.steps * (recipe.train.batch or 1) / max(len(ready.train), 1)
    return [f"the data are seen {passes:,.0f} times: a larger model would need more data"] if passes > PASSES else []


def _heads(trunk: Any) -> str:
    found = [str(heads or "by width") for block in trunk.blocks if (heads := getattr(block.mixer, "heads", 0)) != 0]
    return ", ".join(dict.fromkeys(found))


def _precision(asked: str, hardware: Hardware, recipe: Recipe) -> str:
    return hardware.precision(max(trunk.width for trunk in recipe.trunks.values())) if asked == "auto" else asked


def _read(recipe: Recipe, stream: str) -> bool:
    return any(stream in trunk.inputs for trunk in recipe.trunks.values())
