"""Check that a part does what its room asks, that a run folder is whole, or that trainings and files survive faults.

sevenfold check rotary                       every check of the position room on `rotary`
sevenfold check mylab_mixer --room mixing    a part of an installed package
sevenfold check runs/speeches                a run folder: whole, loads, gives the same again
sevenfold check --faults                     kill -9, full disks, damaged, mutated and hostile files: a table
sevenfold check --faults --only killed --tries 20
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from sevenfold.core.errors import ConfigError, did_you_mean
from sevenfold.core.rooms import ROOMS, folder, kinds

if TYPE_CHECKING:
    from sevenfold.conformance.fault import Outcome


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="KIND_OR_RUN", nargs="?", help="the kind of a part, or a run folder")
    parser.add_argument("--room", help="the room of the part, where several have one of that name")
    parser.add_argument("--faults", action="store_true", help="try faults, and print what came of each")
    parser.add_argument("--only", action="append", metavar="NAME", help="with --faults: this one (may be repeated)")
    parser.add_argument(
        "--tries", type=int, metavar="N", help="with --faults: so many tries a row, instead of its own number"
    )
    parser.add_argument("--markdown", action="store_true", help="with --faults: the table of docs/reliability.md")
    parser.add_argument("--json", action="store_true", help="with --faults: a JSON object a row")


def run(args: argparse.Namespace) -> int:
    if args.faults:
        return _faults(args)
    if args.what is None:
        raise ConfigError("say what to check: the kind of a part, a run folder, or --faults")
    from sevenfold import conformance

    if args.room is None and (Path(args.what) / "recipe.yaml").is_file():
        found = {args.what: conformance.run_on_run(args.what)}
    else:
        if args.room is not None:
            folder(args.room)
        rooms = [room for room in ROOMS if args.room in (None, room) and args.what in kinds(room)]
        if not rooms:
            known = {kind for room in ROOMS if args.room in (None, room) for kind in kinds(room)}
            raise ConfigError(
                f"{args.what!r} is neither a run folder nor a part{f' of {args.room}' if args.room else ''}"
                f"{did_you_mean(args.what, known)}"
            )
        found = {f"{room} {args.what}": conformance.run(room, args.what) for room in rooms}
    for title, results in found.items():
        print(title)
        for result in results:
            sign = "✗" if not result.ok else "–" if result.skipped_why else "✓"
            print(f"  {sign} {result.name:<20} {result.message or result.skipped_why}".rstrip())
    results = [result for group in found.values() for result in group]
    failed, skipped = sum(not result.ok for result in results), sum(bool(result.skipped_why) for result in results)
    print(f"{len(results) - failed - skipped} hold, {failed} fail, {skipped} do not apply")
    return 1 if failed else 0


def _faults(args: argparse.Namespace) -> int:
    """A row for each fault as it was tried; 1 if one misses its target."""
    from sevenfold.conformance import fault

    if args.tries is not None and args.tries < 1:
        raise ConfigError(f"--tries {args.tries}: must be at least 1")
    layout = _json if args.json else _markdown if args.markdown else _plain
    missed = 0
    for number, name in enumerate(args.only or fault.names()):
        for place, row in enumerate(fault.outcomes(name, args.tries)):
            missed += not row.ok
            layout(name, row, not number and not place)
    if layout is _plain:
        print("every target is met" if not missed else f"{missed} targets are missed")
    return 1 if missed else 0


def _verdict(row: Outcome) -> str:
    return "" if not row.gates else "ok" if row.ok else "MISS"


def _plain(name: str, row: Outcome, first: bool) -> None:
    if first:
        print(f"{'fault':<11} {'what was tried':<68} {'tried':>6} {'missed':>6}  {'target':<36} {'':<4} {'s':>5}")
    told = f"\n{'':<12}{row.told}" if row.told else ""
    print(
        f"{name:<11} {row.what:<68} {row.tried:>6} {row.missed:>6}  {row.target:<36} {_verdict(row):<4} {row.seconds:>5.0f}{told}",
        flush=True,
    )


def _markdown(name: str, row: Outcome, first: bool) -> None:
    if first:
        print("| fault | what was tried | tried | missed | target | | |\n|---|---|---|---|---|---|---|")
    what = row.what if row.gates else f"*{row.what}*"
    told = row.told.replace("|", "/")
    print(
        f"| `{name}` | {what} | {row.tried:,} | {row.missed:,} | {row.target} | {_verdict(row)} | {told} |", flush=True
    )


def _json(name: str, row: Outcome, first: bool) -> None:
    print(json.dumps({"fault": name, **row._asdict(), "ok": row.ok}), flush=True)
