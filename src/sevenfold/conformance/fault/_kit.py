"""What faults are tried with: small trainings, processes that may die, and the tally of what went wrong."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from sevenfold.conformance.fault import Outcome
from sevenfold.training.fit import Fitted, fit
from sevenfold.training.prepare import Ready, prepare
from sevenfold.training.recipe import read_recipe

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["sevenfold.conformance.fault._warm"])


def small(width: int = 16, **train: Any) -> dict[str, Any]:
    """A recipe that trains in moments: digits and their labels."""
    return {
        "data": {"kind": "digits", "limit": 40, "held_out": 0.2},
        "streams": {
            "image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}},
            "label": {"kind": "label"},
        },
        "trunks": {
            "enc": {
                "inputs": ["image"],
                "width": width,
                "depth": 2,
                "position": "axial_rotary",
                "block": {"dropout": 0.1},
            }
        },
        "objective": {"kind": "supervised"},
        "train": {"steps": 8, "batch": 4, "precision": "fp32", "evaluate_batches": 1, **train},
    }


def ready_of(data: Any) -> Ready:
    """A recipe made real, without a word."""
    return prepare(read_recipe(data), note=lambda line: None)


def fitted(data: Any, folder: Path | None, **more: Any) -> Fitted:
    """Train a recipe in a folder, going on where it stopped."""
    ready = ready_of(data)
    return fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, seed=ready.recipe.seed, folder=folder,
               resume=True, bad=ready.bad, bar=False, **more)  # fmt: skip


class Tally:
    """Counts tries, and keeps what the first miss was."""

    def __init__(self) -> None:
        self.tried = self.missed = 0
        self.first = ""

    def note(self, wrong: str) -> None:
        """One try; `wrong` says what was wrong with it, or nothing."""
        self.tried += 1
        if wrong:
            self.missed += 1
            self.first = self.first or " ".join(wrong.split())[:300]

    def outcome(self, what: str, target: str, told: str = "", gates: bool = True) -> Outcome:
        """It as a row."""
        first = f"first: {self.first}" if self.first and gates else ""
        return Outcome(what, self.tried, self.missed, target, "; ".join(part for part in (told, first) if part), gates)


def begin(function: Callable[..., Any], *args: Any, told: Path | None = None) -> BaseProcess:
    """Start a function of a module in a process of its own, with one thread; what it prints goes to the file `told`. The
    process exits with what it returns."""
    process = _CONTEXT.Process(target=_run, args=(function, args, told), daemon=False)
    process.start()
    return process


def _run(function: Callable[..., Any], args: tuple, told: Path | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored
    torch.set_num_threads(1)
    out = os.open(told if told is not None else os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    code = function(*args)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def ended(process: BaseProcess, seconds: float) -> bool:
    """Whether a process ends by itself in so many seconds; if not, it is killed."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        return False
    return True


def awaits(holds: Callable[[], bool], process: BaseProcess, seconds: float = 60.0) -> bool:
    """Wait until something holds, as long as a process lives."""
    end = time.monotonic() + seconds
    while not holds():
        if process.exitcode is not None or time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def changed(content: bytes, how: str, draw: random.Random) -> bytes:
    """A file's content with one fault: `flip` a bit, `truncate` it, `grow` it by a byte."""
    if how == "truncate":
        return content[: draw.randrange(len(content))]
    if how == "grow":
        return content + b"\0"
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
