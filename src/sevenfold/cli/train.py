"""Train a recipe, and leave a run folder.

sevenfold train recipes/gpt.yaml data.path=speeches/ train.steps=500 --out runs/speeches
sevenfold train runs/speeches --resume
"""

from __future__ import annotations

import argparse
import textwrap

from sevenfold.core.rooms import ROOMS, kinds


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a YAML file, the name of a recipe that comes with the package, or a run folder")
    parser.add_argument("overrides", nargs="*", metavar="field=value", help="dotted fields of the recipe to change")
    parser.add_argument("--out", metavar="DIR", help="the run folder (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue the run exactly where it stopped")
    parser.epilog = _parts()


def _parts() -> str:
    """What a recipe can name, room by room."""
    lines = ["kinds of parts that a recipe can name (sevenfold list tells more):"]
    for room in ROOMS:
        names = textwrap.wrap(", ".join(kinds(room)), 94)
        lines += [f"  {room if first else '':<14} {line}" for first, line in zip([True] + [False] * 99, names)]
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    from sevenfold.training.run import train

    train(args.recipe, args.out, overrides=args.overrides, resume=args.resume)
    return 0
