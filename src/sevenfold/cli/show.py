"""Draw a recipe or a run: its trunks, and part by part what training it needs; with a budget, the model that fits.

sevenfold show recipes/gpt.yaml data.path=speeches/
sevenfold show gpt data.path=speeches/ --budget 2h --memory 8GB --hardware h200
sevenfold show gpt data.path=speeches/ --hardware h100 --processes 8,64,1024
sevenfold show runs/gpt --recipe

FLOPs are those of one item, forward and backward (2 per multiply-add, matrix products only); memory and seconds are those
of one step. Everything is by formula: nothing is run but a second of measuring this machine.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sevenfold.cli._table import mebibytes, short, table
from sevenfold.core.errors import ConfigError

if TYPE_CHECKING:
    from sevenfold.objective import Objective
    from sevenfold.training.plan import Plan


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="RECIPE|RUN", help="a recipe (file or name), or a run folder")
    parser.add_argument("overrides", nargs="*", metavar="field=value", help="dotted fields of the recipe to change")
    parser.add_argument("--budget", metavar="TIME", help="find the largest model for so much time: 90s, 30m, 2h, 1d")
    parser.add_argument("--memory", metavar="SIZE", help="find the largest model for so much memory: 500MB, 8GB, 8GiB")
    parser.add_argument("--hardware", metavar="NAME", default="here", help="a100, h100, h200, or here (default)")
    parser.add_argument(
        "--processes", metavar="N,…", help="what each of so many needs, and how much of the time talking costs"
    )
    parser.add_argument("--recipe", action="store_true", help="print the recipe too, with every default written out")


def run(args: argparse.Namespace) -> int:
    from sevenfold.core import notation, part

    processes = _counts(args.processes) if args.processes else []
    plan, objective = _planned(args)
    _trunks(objective)
    _parts(plan)
    _memory(plan)
    _told(plan, args)
    if processes:
        _layouts(plan, processes)
    if args.recipe:
        print("\n" + notation.write(part.encode(plan.recipe)), end="")
    return 0


def _planned(args: argparse.Namespace) -> tuple[Plan, Objective]:
    """The plan and its objective: of a run as it is, of a recipe with its tokenizers fitted."""
    from sevenfold.training.hardware import Hardware
    from sevenfold.training.load import load_objective
    from sevenfold.training.plan import of_run, on_meta, plan_of
    from sevenfold.training.prepare import prepare
    from sevenfold.training.recipe import read_recipe
    from sevenfold.training.units import bytes_of, seconds_of

    seconds = None if args.budget is None else seconds_of(args.budget)
    memory = None if args.memory is None else bytes_of(args.memory)
    if Path(args.what).is_dir():
        if args.overrides:
            raise ConfigError(
                f"{args.overrides[0]!r}: a run is shown as it is; to change its recipe, show its recipe.yaml"
            )
        if seconds is not None or memory is not None:
            raise ConfigError(f"{args.what}: a run has its size; to plan another, show its recipe.yaml")
        objective = load_objective(args.what)
        return of_run(read_recipe(args.what), objective, Hardware.named(args.hardware)), objective
    recipe, hardware = read_recipe(args.what, args.overrides), Hardware.named(args.hardware)
    ready = prepare(recipe, note=lambda line: print(line, file=sys.stderr))
    plan = plan_of(ready, hardware, recipe.train.precision, seconds, memory)
    return plan, on_meta(plan.recipe, ready.model.modalities) if plan.traded else ready.objective


def _trunks(objective: Objective) -> None:
    from sevenfold.assembly.cost.tokens import full_lengths, known_tokens

    model = objective.model
    lengths = full_lengths(model)
    tokens = known_tokens(model, lengths)
    rows = []
    for name, modality in model.modalities.items():
        tokenizer = modality.tokenizer
        size = f"{tokenizer.size} ids" if tokenizer.size is not None else f"vectors of {tokenizer.features}"
        rows.append([name, f"{modality.kind} by {tokenizer.kind}", size, f"{tokens[name]:,}"])
    table(["stream", "made of", "tokens are", "tokens"], rows, left=3)
    print()
    rows = []
    for name, trunk in model.config.trunks.items():
        reads = " + ".join(trunk.inputs) + (f" (cross: {trunk.cross_attends})" if trunk.cross_attends else "")
        blocks = trunk.blocks
        rows.append(
            [
                name + (" (frozen)" if trunk.frozen else ""),
                reads,
                f"{trunk.width} x {trunk.depth}",
                _kinds(block.mixer for block in blocks),
                _kinds([trunk.position, *(block.position for block in blocks if block.position)]),
                _kinds(block.nonlinearity for block in blocks),
                _kinds(
                    norm for block in blocks for norm in (block.norm if isinstance(block.norm, tuple) else [block.norm])
                ),
                _mask(trunk.mask),
                f"{tokens[name]:,}",
            ]
        )
    columns = ["trunk", "reads", "width x depth", "mixer", "position", "nonlinearity", "norm", "mask", "tokens"]
    table(columns, rows, left=8)
    print()


def _kinds(configs: Any) -> str:
    return ", ".join(dict.fromkeys("none" if config is None else config.kind for config in configs)) or "none"


def _mask(mask: Any) -> str:
    said = ["causal"] if mask.causal else ["both sides"]
    said += [f"window {mask.window}"] if mask.window else []
    return ", ".join(said + (["prefix"] if mask.prefix else []))


def _parts(plan: Plan) -> None:
    drawn = []
    for row in gathered(plan.rows):
        drawn.append(
            [row["part"], row["kind"], f"{row['parameters']:,}", short(row["forward"]), short(row["backward"])]
        )
        drawn[-1] += [
            mebibytes(row["kept"]),
            mebibytes(row["cache"]) if row["cache"] else "",
            f"{1e3 * row['seconds']:.3g}",
        ]
    found = plan.estimate
    forward, backward = (sum(row[way] for row in plan.rows) for way in ("forward", "backward"))
    kept, cache = sum(row["kept"] for row in plan.rows), 4 * found.cache[0]
    total = ["total", "", f"{found.parameters:,}", short(forward), short(backward), mebibytes(kept)]
    drawn.append([*total, mebibytes(cache) if cache else "", f"{1e3 * (found.seconds or 0):.3g}"])
    columns = ["part", "kind", "parameters", "FLOPs", "backward", "kept", "cache", "ms a step"]
    table(columns, drawn, left=2)
    print()


def gathered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the blocks of a trunk as one row per role and kind, the others as they are."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((re.sub(r"\.blocks\.\d+\.", ".blocks.*.", row["part"]), row["kind"]), []).append(row)
    told = []
    for (place, kind), group in found.items():
        sums = {name: sum(row[name] for row in group) for name in group[0] if name not in ("part", "kind")}
        told.append({"part": place if len(group) == 1 else f"{place} ({len(group)} of them)", "kind": kind, **sums})
    return told


def _memory(plan: Plan) -> None:
    found = plan.estimate
    drawn = [[name, mebibytes(size)] for name, size in found.memory.items()]
    drawn.append([f"peak ({found.moment})", mebibytes(found.peak)])
    pieces = f" in {found.pieces} pieces" if found.pieces > 1 else ""
    table([f"memory of a step of {plan.recipe.train.batch} items{pieces} in {found.precision}", "about"], drawn)
    print()


def _told(plan: Plan, args: argparse.Namespace) -> None:
    found, steps = plan.estimate, plan.recipe.train.steps
    print(f"on {plan.hardware.name}: a step takes about {found.seconds:.3g} s, {steps:,} steps {_time(plan.seconds)}")
    if found.cache[0]:
        print(f"state of generation: {mebibytes(4000 * found.cache[1])} more per 1,000 tokens, in float32")
    if args.budget or args.memory:
        held = " and ".join(given for given in (args.budget, args.memory) if given)
        print(f"\nfor {held}: " + ("the recipe fits as it is" if not plan.traded else "traded"))
        for line in plan.traded:
            print(f"  {line}")


def _counts(asked: str) -> list[int]:
    if not re.fullmatch(r"[1-9]\d{0,5}(,[1-9]\d{0,5})*", asked):
        raise ConfigError(f"--processes: whole numbers, 8 or 8,64,1024, not {asked!r}")
    return [int(count) for count in asked.split(",")]


def _layouts(plan: Plan, counts: list[int]) -> None:
    from sevenfold.training.parallel.layout import layouts, unshared

    found, batch, parallel = plan.estimate, plan.recipe.train.batch or 32, plan.recipe.parallel
    sequence, heads, again = parallel.sequence, parallel.tensor, plan.recipe.train.recompute
    drawn = []
    for processes in counts:
        for way in layouts(found, plan.hardware, processes, sequence, heads, again):
            rows = batch * processes // way.together
            drawn.append(
                [f"{processes:,}", way.way, mebibytes(way.memory), mebibytes(way.sent), f"{way.seconds:.3g} s", f"{100 * way.efficiency:.0f} %", f"{rows:,}"]
            )  # fmt: skip
    print()
    table(
        [
            "processes",
            "parallel",
            "memory of each",
            "sends a step",
            "a step takes",
            "of its time it computes",
            "rows a step",
        ],
        drawn,
    )
    if heads > 1 and not any("tensor" in line[1] for line in drawn):
        why = unshared(found, heads) or f"{', '.join(map(str, counts))} processes cannot be shared out by {heads}"
        print(f"nothing with parallel.tensor={heads}: {why}")


def _time(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
