"""kill -9 at random moments of a training that saves after every step; beside it the same training with torch.save over one
file, which is tried in the same way."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from sevenfold.conformance.fault import Outcome
from sevenfold.conformance.fault._kit import Tally, awaits, begin, fitted, ready_of, small
from sevenfold.core.errors import SevenfoldError
from sevenfold.core.files import verify_manifest
from sevenfold.data.loader import Order, load
from sevenfold.training import checkpoint
from sevenfold.training.log import read_log
from sevenfold.training.step import take_step

TRIES = 200
LONG = 100_000
"""Steps of a training that only ends by being killed."""


def ours(data: dict[str, Any], folder: Path) -> None:
    """Train, going on where it stopped."""
    fitted(data, folder)


def peer(data: dict[str, Any], folder: Path) -> None:
    """The same steps, and everything into one file after each."""
    ready, path = ready_of(data), folder / "checkpoint.pt"
    config, objective = ready.recipe.train, ready.objective
    optimizer = config.optimizer.build(dict(objective.named_parameters()), objective.cares())
    batches = load(ready.train, Order(len(ready.train), config.batch or 4, 0, 0, LONG), 0)
    for step, (batch, _, _) in enumerate(batches):
        take_step(objective, optimizer, batch, config, "fp32", 0, step, 1.0)
        torch.save({"model": objective.state_dict(), "optimizer": optimizer.tensors(), "step": step}, path)
        (folder / "begun").touch()


def tried(folder: Path, tries: int, width: int = 320) -> Iterator[Outcome]:
    """`width`: of the model; 320 makes checkpoints of some 30 MB."""
    data = small(width, steps=LONG, save_every=1, evaluate_every=LONG, keep=2)
    draw, tally, reached = random.Random(0), Tally(), 0
    for attempt in range(tries):
        reached, wrong = _killed(folder, data, reached, draw, early=attempt % 4 == 0)
        tally.note(wrong)
    size = sum(file.stat().st_size for file in folder.glob("checkpoints/*/*")) / max(1, len(checkpoint.listed(folder)))
    yield tally.outcome(
        "kill -9 while training saves every step",
        "0 lost, 0 corrupt, no manual step",
        f"{reached} steps reached, {size / 1e6:.0f} MB each",
    )
    unreadable = Tally()
    for _ in range(tries):
        (folder / "peer").mkdir(exist_ok=True)
        (folder / "peer/begun").unlink(missing_ok=True)
        process = begin(peer, data, folder / "peer")
        awaits((folder / "peer/begun").exists, process)
        time.sleep(draw.uniform(0, 0.3))
        process.kill()
        process.join()
        unreadable.note(_said(lambda: torch.load(folder / "peer/checkpoint.pt", weights_only=True)))
    yield unreadable.outcome("the same with torch.save over one file", "(peer)", gates=False)


def _killed(folder: Path, data: Any, reached: int, draw: random.Random, early: bool) -> tuple[int, str]:
    """Kill one process → (the newest step that is saved, what is wrong)."""
    before = _logged(folder)
    process = begin(ours, data, folder, told=folder / "told")
    if not early:
        wanted = before + draw.randint(1, 4)
        if not awaits(lambda: _logged(folder) >= wanted, process):
            process.kill()
            process.join()
            return reached, f"did not go on: {(folder / 'told').read_text()[-200:]}"
    time.sleep(draw.uniform(0, 0.4 if early else 0.15))
    if process.exitcode is not None:
        return reached, f"ended by itself: {(folder / 'told').read_text()[-200:]}"
    os.kill(process.pid or 0, 9)
    process.join()
    logged, found = _logged(folder), checkpoint.listed(folder)
    for path in found:
        wrong = _said(lambda path=path: verify_manifest(path))  # type: ignore[misc]
        if wrong:
            return reached, wrong
    newest = max((int(path.name.removeprefix("step-")) for path in found), default=0)
    saved = max(reached, logged - 2)  # a checkpoint is written while the next step is made
    if newest < saved:
        return newest, f"step {saved} was saved, and the newest is {newest}"
    return newest, "" if "damaged" not in (folder / "told").read_text() else "a damaged one was passed over"


def _logged(folder: Path) -> int:
    return max((record["step"] for record in read_log(folder)), default=0)


def _said(action: Callable[[], Any]) -> str:
    """What an action says that fails; nothing if it does not."""
    try:
        action()
    except (SevenfoldError, RuntimeError, OSError, EOFError, ValueError) as error:
        return str(error) or type(error).__name__
    except Exception as error:  # of the peer's reader
        return repr(error)
    return ""
