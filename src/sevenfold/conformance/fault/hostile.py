"""Files that mean harm: code in pickles and in what names code, bombs, paths that lead out of the folder. Nothing of it runs, nothing is
written outside, and each is read or refused within 2 s and 512 MB."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sevenfold.conformance.fault import Outcome
from sevenfold.conformance.fault._kit import Tally
from sevenfold.conformance.fault._payloads import PAYLOADS
from sevenfold.conformance.fault._watched import Attempt, watched

TRIES = len(PAYLOADS)
SECONDS, BYTES = 2.0, 512 << 20
RUNS = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class"}
"""Audit events of code that is run."""
ROWS = {
    "code": ("pickles, object arrays, YAML tags, _target_, auto_map, kinds", "0 run, 2 s, +512 MB"),
    "bomb": ("bombs: archives, pictures, arrays, nested and huge values", "0 run, 2 s, +512 MB"),
    "path": ("names and links that lead out of the folder", "0 bytes outside, 2 s, +512 MB"),
}


class Harmed(BaseException):
    """What should not have happened."""


def harmful(folder: Path, name: str) -> Attempt:
    """One payload, in a folder of its own; what it does is listened to."""
    inside, mark = folder / name / "inside", folder / name / "mark"
    inside.mkdir(parents=True)
    action, seen, on = PAYLOADS[name](inside, mark), list[str](), [False]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if on[0] and event in RUNS:
            seen.append(f"{event} {str(args)[:80]}")

    sys.addaudithook(hook)

    def attempt(number: int) -> None:
        before = _outside(folder / name)
        on[0] = True
        try:
            action()
        finally:
            on[0] = False
            if seen or mark.exists() or _outside(folder / name) != before:
                raise Harmed(f"ran or wrote: {seen or sorted(_outside(folder / name) - before)}") from None

    return attempt


def _outside(folder: Path) -> set[str]:
    """What is in the folder around, with hashes."""
    return {
        f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()[:8] if path.is_file() else ''}"
        for path in folder.rglob("*")
        if (folder / "inside") not in (path, *path.parents)
    }


def tried(folder: Path, tries: int) -> Iterator[Outcome]:
    """Each payload once, in a process of its own; `tries` are shared among the rows."""
    for sort, (what, target) in ROWS.items():
        names = [name for name in PAYLOADS if name.startswith(sort)]
        tally, slowest, memory = Tally(), 0.0, 0
        for name in names[: max(1, tries * len(names) // len(PAYLOADS))]:
            for met in watched(harmful, (folder, name), 1, SECONDS):
                wrong = met.wrong or (f"takes {met.memory / 1e6:.0f} MB" if met.memory > BYTES else "")
                tally.note(f"{name}: {wrong}" if wrong else "")
                slowest, memory = max(slowest, met.seconds), max(memory, met.memory)
            shutil.rmtree(folder / name, ignore_errors=True)
        yield tally.outcome(what, target, f"slowest {slowest:.1f} s, +{memory / 1e6:.0f} MB")
