"""Every recipe that comes with the package, stopped in mid-epoch, at an epoch's end, and twice, with 0 and 2 loader processes: resumed, the
losses and weights are those of a run that was not stopped, bit for bit."""

from __future__ import annotations

import copy
import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from sevenfold.conformance.fault import Outcome
from sevenfold.conformance.fault._fitting import fitting
from sevenfold.conformance.fault._kit import Tally, ready_of
from sevenfold.conformance.fault.diverging import same, tensors
from sevenfold.core.errors import SevenfoldError
from sevenfold.training.fit import fit
from sevenfold.training.prepare import Ready
from sevenfold.training.recipe import shipped_folder
from sevenfold.training.stop import Preempted

TRIES = 1000
"""Recipes, at most; there are fewer."""
LIMIT, EPOCH = 24, 3
"""Samples that are read, and steps of an epoch."""
TIMES = {"tokens_per_s", "mfu", "wait_s"}


def tried(folder: Path, tries: int) -> Iterator[Outcome]:
    """All recipes, or some, evenly spaced; those whose data cannot be made up here are named."""
    files = sorted(shipped_folder().glob("*.yaml"), key=lambda file: (not file.name.startswith("tiny_"), file.name))
    chosen = files if tries >= len(files) else files[:: -(-len(files) // tries)]
    cells = {(workers, where): Tally() for workers in (0, 2) for where in ("mid-epoch", "epoch end", "second resume")}
    left_out = []
    for file in chosen:
        try:
            ready = small_one(file, folder / file.stem)
        except SevenfoldError as error:
            left_out.append(f"{file.stem} ({error})"[:120])
            continue
        for (workers, where), wrong in compared(ready, folder / "runs"):
            cells[workers, where].note(f"{file.stem}: {wrong}" if wrong else "")
        shutil.rmtree(folder / file.stem, ignore_errors=True)
    for (workers, where), tally in cells.items():
        told = f"left out: {', '.join(left_out)}" if left_out and (workers, where) == (0, "mid-epoch") else ""
        yield tally.outcome(
            f"recipes stopped and resumed: {where}, {workers} workers", "losses and weights bitwise", told
        )


def small_one(file: Path, folder: Path) -> Ready:
    """A recipe on a few samples, with epochs of a few steps."""
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    folder.mkdir(parents=True)
    data = fitting(file.stem, data, folder)
    train = {name: value for name, value in data.get("train", {}).items() if name in ("optimizer", "precision", "clip")}
    data["data"]["limit"] = LIMIT
    data["train"] = {
        **train,
        "steps": EPOCH + 2,
        "batch": 4,
        "evaluate_batches": 1,
        "evaluate_every": 99,
        "save_every": 99,
    }
    ready = ready_of(data)
    batch = max(2, math.ceil(len(ready.train) / EPOCH))
    return ready._replace(recipe=ready.recipe.replace(train=ready.recipe.train.replace(batch=batch)))


def compared(ready: Ready, folder: Path) -> Iterator[tuple[tuple[int, str], str]]:
    """(workers, where it is stopped) → what is wrong with the resumed run."""
    wanted = _ran(ready, folder, 0, ())
    end = math.ceil(len(ready.train) / (ready.recipe.train.batch or 1))
    for workers in (0, 2):
        for where, stops in (("mid-epoch", (1,)), ("epoch end", (end,)), ("second resume", (1, end))):
            found = _ran(ready, folder, workers, stops)
            wrong = "" if found[0] == wanted[0] else "other losses"
            yield (workers, where), wrong or ("" if same(found[1], wanted[1]) else "other weights")


def _ran(ready: Ready, folder: Path, workers: int, stops: Sequence[int]) -> tuple[Any, dict[str, Any]]:
    """Train, stopped by a signal after these steps and begun again each time with a fresh objective → (log, weights)."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    settings = ready.recipe.train.replace(workers=workers)
    for stop in (*stops, None):
        objective = copy.deepcopy(ready.objective)
        if stop is not None:
            objective.after_step = _stopping(objective.after_step, stop)  # type: ignore
        try:
            found = fit(objective, ready.train, ready.held_out, settings, seed=ready.recipe.seed, folder=folder, resume=True,
                        bar=False)  # fmt: skip
        except Preempted:
            continue
        log = [{name: value for name, value in record.items() if name not in TIMES} for record in found.log]
        return repr(log), tensors(folder)
    raise AssertionError


def _stopping(after_step: Callable[[int, int], None], stop: int) -> Callable[[int, int], None]:
    def after(step: int, steps: int) -> None:
        after_step(step, steps)
        if step + 1 == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    return after
