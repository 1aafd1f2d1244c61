"""Draw a recipe or a run: its trunks, its parameters and FLOPs by part, the memory that training it needs.

sevenfold show recipes/gpt.yaml data.path=speeches/
sevenfold show runs/gpt --recipe

FLOPs are those of one item of full length, forward (2 per multiply-add, matrix products only); a training step costs
about three times as much. Everything is by formula: nothing is run.
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
    from sevenfold.assembly.flops import Row
    from sevenfold.objective import Objective
    from sevenfold.training.recipe import Recipe


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="RECIPE|RUN", help="a recipe (file or name), or a run folder")
    parser.add_argument("overrides", nargs="*", metavar="field=value", help="dotted fields of the recipe to change")
    parser.add_argument("--recipe", action="store_true", help="print the recipe too, with every default written out")


def run(args: argparse.Namespace) -> int:
    from sevenfold.core import notation, part

    recipe, objective = _made(args.what, args.overrides)
    _trunks(objective)
    _parts(objective)
    _memory(recipe, objective)
    if args.recipe:
        print("\n" + notation.write(part.encode(recipe)), end="")
    return 0


def _made(what: str, overrides: list[str]) -> tuple[Recipe, Objective]:
    """The complete recipe and its objective: of a run as it is, of a recipe with its tokenizers fitted."""
    from sevenfold.training.prepare import prepare
    from sevenfold.training.recipe import read_recipe
    from sevenfold.training.run import load_objective

    if Path(what).is_dir():
        if overrides:
            raise ConfigError(f"{overrides[0]!r}: a run is shown as it is; to change its recipe, show its recipe.yaml")
        return read_recipe(what), load_objective(what)
    ready = prepare(read_recipe(what, overrides), note=lambda line: print(line, file=sys.stderr))
    return ready.recipe, ready.objective


def _trunks(objective: Objective) -> None:
    from sevenfold.assembly.flops import full_lengths, known_tokens

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
                trunk.position.kind,
                _kinds(block.nonlinearity for block in blocks),
                _kinds(block.norm for block in blocks),
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


def _parts(objective: Objective) -> None:
    from sevenfold.assembly.flops import Row, full_lengths, model_rows

    rows = model_rows(objective.model, full_lengths(objective.model))
    inside = {id(parameter) for parameter in objective.model.parameters()}
    own = sum(parameter.numel() for parameter in objective.parameters() if id(parameter) not in inside)
    if own:
        rows.append(Row("objective", str(objective.kind), own, 0))
    drawn = [[row.place, row.kind, f"{row.parameters:,}", short(row.flops)] for row in gathered(rows)]
    total = sum(row.flops for row in rows)
    drawn.append(["total", "", f"{sum(row.parameters for row in rows):,}", short(total)])
    table(["part", "kind", "parameters", "FLOPs"], drawn, left=2)
    print()


def gathered(rows: list[Row]) -> list[Row]:
    """Rows of the blocks of a trunk as one row per role and kind, the others as they are."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((re.sub(r"\.blocks\.\d+\.", ".blocks.*.", row.place), row.kind), []).append(row)
    return [
        group[0]._replace(
            place=place if len(group) == 1 else f"{place} ({len(group)} of them)",
            parameters=sum(row.parameters for row in group),
            flops=sum(row.flops for row in group),
        )
        for (place, _), group in found.items()
    ]


def _memory(recipe: Recipe, objective: Objective) -> None:
    from sevenfold.assembly.flops import full_lengths
    from sevenfold.training.memory import memory
    from sevenfold.training.precision import resolve
    from sevenfold.training.recipe import device_of

    settings = recipe.train
    rows = -(-(settings.batch or 32) // settings.accumulate)
    precision = resolve(settings.precision, device_of(settings.device))
    lengths = full_lengths(objective.model)
    found = memory(objective, settings.optimizer, rows, lengths, precision == "bf16")
    drawn = [[name, mebibytes(size)] for name, size in found.items()]
    drawn.append(["total", mebibytes(sum(found.values()))])
    table([f"memory of a step of {rows} rows in {precision}", "about"], drawn)
