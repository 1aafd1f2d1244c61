"""A loss or gradient that is not finite, or 200 times what it was, at a random step; three bad steps in a row; weights that turn NaN. The
step is left out before the update, and counted; the run goes back, and is bit for bit one that never saw that data."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from sevenfold.conformance.fault import Outcome
from sevenfold.conformance.fault._kit import Tally, ready_of, small
from sevenfold.data.loader import Item, Key, Order, Samples
from sevenfold.training import checkpoint
from sevenfold.training.fit import Fitted, fit
from sevenfold.training.prepare import Ready

TRIES = 20
STEPS, EVERY, IN_A_ROW = 30, 5, 3
WRONG = {"NaN": math.nan, "Inf": math.inf, "a 200-fold": 200.0}


class Told(Samples):
    """Training items that tell which batch of the order was read last; `instead`: batch → the batch that is read in its place."""

    def __init__(self, ready: Ready, instead: Callable[[int], int]):
        size = ready.recipe.train.batch or 1
        order = Order(len(ready.train), size, ready.recipe.seed, 0, 4 * ready.recipe.train.steps)
        self.items, self.size, self.last, self.instead = ready.train, size, -1, instead
        self.keys = [key for keys in order for key in keys]
        self.place = {key: place for place, key in enumerate(self.keys)}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: Key) -> Item:
        batch, row = divmod(self.place[key], self.size)
        self.last = self.instead(batch)
        found: Any = self.items[self.keys[self.last * self.size + row]]
        return found


def spoiled(
    data: Any,
    folder: Path,
    bad: Any = (),
    wrong: float = math.nan,
    where: str = "loss",
    instead: Callable[[int], int] = int,
) -> tuple[Fitted, list[int]]:
    """Train where the batches `bad` of the order give a wrong loss or gradient → (what fit gives, the batches that were read)."""
    ready, read = ready_of(data), list[int]()
    told, forward = Told(ready, instead), ready.objective.forward

    def broken(*given: Any) -> Any:
        loss = forward(*given)
        if ready.objective.training:
            read.append(told.last)
            if told.last in bad and where == "loss":
                return loss._replace(total=loss.total * wrong)
            if told.last in bad:
                loss.total.register_hook(lambda gradient: gradient * wrong)
        return loss

    ready.objective.forward = broken  # type: ignore
    seed, settings = ready.recipe.seed, ready.recipe.train
    found = fit(ready.objective, told, ready.held_out, settings, seed=seed, folder=folder, resume=True, bar=False)
    return found, read


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """Model and optimizer of the newest checkpoint."""
    newest = checkpoint.listed(run)[0]
    return {
        f"{file.name} {name}": value for file in newest.glob("*.safetensors") for name, value in load_file(file).items()
    }


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether they are equal, bit for bit."""
    return first.keys() == second.keys() and all(value.equal(second[name]) for name, value in first.items())


def tried(folder: Path, tries: int) -> Iterator[Outcome]:
    """One bad batch, and some in a row; each against a run that was given other data by hand."""
    draw = random.Random(0)
    data = small(
        steps=STEPS, save_every=EVERY, evaluate_every=STEPS, guard={"in_a_row": IN_A_ROW}, schedule={"kind": "cosine"}
    )
    once, rows = Tally(), Tally()
    for attempt in range(tries):
        name, where = sorted(WRONG)[attempt % 3], ("loss", "gradient")[attempt // 3 % 2]
        once.note(_once(folder / "once", data, draw.randrange(17, STEPS), WRONG[name], where, name))
    yield once.outcome(
        "NaN, Inf or a spike in the loss or the gradients of a step", "left out, counted, weights untouched"
    )
    for attempt in range(tries):
        name, where = sorted(WRONG)[attempt % 3], ("loss", "gradient")[attempt // 3 % 2]
        rows.note(_in_a_row(folder, data, draw.randrange(17, STEPS - IN_A_ROW), WRONG[name], where, name))
    yield rows.outcome("the same, three steps in a row", "back, data passed over, then bitwise")


def _once(run: Path, data: Any, bad: int, wrong: float, where: str, name: str) -> str:
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    each = {**data, "train": {**data["train"], "save_every": 1, "keep": STEPS + 1}}
    found, read = spoiled(each, run, {bad}, wrong, where)
    if found.skipped != 1 or [r["step"] for r in found.log if "skipped" in r] != [bad + 1]:
        return f"{name} {where} in step {bad + 1}: {found.skipped} steps were left out"
    before, after = (run / f"checkpoints/step-{step:08d}/model.safetensors" for step in (bad, bad + 1))
    if after.exists() and before.read_bytes() != after.read_bytes():
        return f"{name} {where} in step {bad + 1}: the weights changed"
    if not all(value.isfinite().all() for value in tensors(run).values()):
        return f"{name} {where}: not finite in the last checkpoint"
    return "" if read == list(range(STEPS)) else f"{name} {where}: read {read}"


def _in_a_row(folder: Path, data: Any, bad: int, wrong: float, where: str, name: str) -> str:
    for run in ("rows", "other"):
        shutil.rmtree(folder / run, ignore_errors=True)
        (folder / run).mkdir()
    found, _ = spoiled(data, folder / "rows", set(range(bad, bad + IN_A_ROW)), wrong, where)
    back, after = bad // EVERY * EVERY, bad + IN_A_ROW
    spoiled(data, folder / "other", instead=lambda batch: batch + after - back if batch >= back else batch)
    if [r["went_back"]["to"] for r in found.log if "went_back" in r] != [back] or found.skipped != IN_A_ROW:
        return f"{name} {where} from step {bad + 1} on: did not go back to {back}"
    if not same(tensors(folder / "rows"), tensors(folder / "other")):
        return f"{name} {where} from step {bad + 1} on: is not the run without that data"
    return ""
