"""Check that a part does what its room asks, or that a run folder is whole.

sevenfold check rotary                       every check of the position room on `rotary`
sevenfold check mylab_mixer --room mixing    a part of an installed package
sevenfold check runs/speeches                a run folder: whole, loads, gives the same again
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sevenfold.core.errors import ConfigError, did_you_mean
from sevenfold.core.rooms import ROOMS, folder, kinds


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="KIND_OR_RUN", help="the kind of a part, or a run folder")
    parser.add_argument("--room", help="the room of the part, where several have one of that name")


def run(args: argparse.Namespace) -> int:
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
