"""SIGTERM, SIGINT and SIGUSR1 at random moments of a training (also while it compiles and saves): saved, gone in time, with the exit
code of one that was stopped; a second signal ends it at once."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sevenfold.conformance.fault import Outcome
from sevenfold.conformance.fault._kit import Tally, awaits, begin, ended, fitted, small
from sevenfold.training import checkpoint
from sevenfold.training.log import read_log
from sevenfold.training.stop import SIGNALS, Preempted, stopping

TRIES = 30
SECONDS = 25.0


def training(data: dict[str, Any], folder: Path) -> int:
    """Train; the exit code is that of the command line. Whether it listens to signals is told by a file."""
    try:
        (folder / "listens").touch()
        fitted(data, folder)
        return 0
    except Preempted as stopped:
        os.write(1, f"\n{stopped}".encode())
        return stopped.code


def waiting(folder: Path) -> int:
    """Something that takes a minute where signals are noted."""
    with stopping():
        (folder / "listens").touch()
        time.sleep(60)
    return 3


def tried(folder: Path, tries: int) -> Iterator[Outcome]:
    """A tenth of the tries with compilation, during which the signal arrives."""
    draw, slowest = random.Random(0), 0.0
    for compiled in (False, True):
        tally, count = Tally(), tries if not compiled else tries // 10
        for attempt in range(count):
            run, number = folder / f"{compiled}-{attempt % 3}", SIGNALS[attempt % len(SIGNALS)]
            seconds, wrong = _stopped(run, number, compiled, draw)
            slowest = max(slowest, seconds)
            tally.note(wrong)
        if not count:
            continue
        what = "a signal while compiling the first step" if compiled else "SIGTERM, SIGINT, SIGUSR1 at a random moment"
        yield tally.outcome(what, "saved < 25 s, exit code 128 + n", f"slowest {slowest:.1f} s")
    tally, slowest = Tally(), 0.0
    for attempt in range(-(-tries // 3)):
        (folder / "listens").unlink(missing_ok=True)
        process = begin(waiting, folder)
        awaits((folder / "listens").exists, process)
        for _ in range(2):
            time.sleep(0.1)
            began = time.perf_counter()
            os.kill(process.pid or 0, SIGNALS[attempt % len(SIGNALS)])
        gone = ended(process, 10)
        seconds = time.perf_counter() - began
        slowest = max(slowest, seconds)
        tally.note("" if gone and seconds < 2 and process.exitcode != 3 else f"gone after {seconds:.1f} s")
    yield tally.outcome("a second signal", "gone at once", f"slowest {slowest:.2f} s")


def _stopped(run: Path, number: int, compiled: bool, draw: random.Random) -> tuple[float, str]:
    """Stop one training → (seconds until it was gone, what is wrong)."""
    run.mkdir(exist_ok=True)
    (run / "listens").unlink(missing_ok=True)
    data = small(64, steps=100_000, save_every=draw.choice([1, 7, 50]), evaluate_every=100_000, compile=compiled)
    logged = len(read_log(run))
    process = begin(training, data, run, told=run / "told")
    first = (lambda: bool(checkpoint.listed(run))) if compiled else (lambda: len(read_log(run)) > logged)
    if not awaits(first, process):
        process.kill()
        return 0.0, f"did not begin: {(run / 'told').read_text()[-200:]}"
    time.sleep(draw.uniform(0, 2.0 if compiled else 0.5))
    began = time.perf_counter()
    os.kill(process.pid or 0, number)
    gone = ended(process, 60)
    seconds, said = time.perf_counter() - began, (run / "told").read_text()[-300:]
    name = signal.Signals(number).name
    if not gone or seconds > SECONDS:
        return seconds, f"{name}: gone after {seconds:.0f} s"
    if process.exitcode != 128 + number:
        return seconds, f"{name}: exit code {process.exitcode}: {said}"
    newest = int(checkpoint.newest_whole(run, lambda line: None).name.removeprefix("step-"))
    steps = max((record["step"] for record in read_log(run)), default=0)
    if newest != steps and "did not end in time" not in said:
        return seconds, f"{name}: {steps} steps were made, and {newest} saved"
    return seconds, ""
