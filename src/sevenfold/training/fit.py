"""The only loop.

    for each step:  batch -> objective -> gradients of the sum / count -> clip -> optimizer -> objective.after_step

It knows an Objective and nothing else. Sums and counts make accumulation exact; every random choice is seeded from
(seed, step), so a run that is killed and resumed gives the losses and weights, bit for bit, of one that was not.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sevenfold.assembly.model import to_device
from sevenfold.core.errors import BadSample, CheckpointError, SevenfoldError
from sevenfold.core.seeds import seed_of
from sevenfold.core.types import Batch, Loss
from sevenfold.data.bad import BadSamples
from sevenfold.data.loader import Order, gather, load
from sevenfold.objective import Objective
from sevenfold.training import checkpoint
from sevenfold.training.log import Bar, Log
from sevenfold.training.precision import autocast, peak_flops, resolve
from sevenfold.training.recipe import TrainConfig, device_of


class Preempted(SevenfoldError):
    """Stopped by a signal, with everything saved."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.code = 128 + number


class Fitted(NamedTuple):
    """What a finished fit tells: its log, the last held-out terms, seconds spent in this process."""

    log: list[dict[str, Any]]
    held_out: dict[str, float]
    seconds: float


def fit(
    objective: Objective,
    train: Dataset,
    held_out: Dataset,
    config: TrainConfig,
    *,
    seed: int = 0,
    folder: Path | None = None,
    resume: bool = False,
    bad: BadSamples | None = None,
    facts: Mapping[str, Any] | None = None,
    on_look: Callable[[int], None] | None = None,
    bar: bool | None = None,
) -> Fitted:
    """Train `objective` on `train` for config.steps steps, looking at `held_out` on the way.

    folder   where checkpoints and the log go; None keeps everything in memory
    resume   continue from the newest whole checkpoint in `folder`
    bad      the ledger of samples that cannot be read
    facts    what to store in each checkpoint's state.json
    on_look  called after each look at the held-out loss
    bar      show a progress bar; by default when the output is a terminal

    Raises Preempted after saving, when SIGINT or SIGTERM arrives; DataError when too many samples are bad.
    """
    device = device_of(config.device)
    precision = resolve(config.precision, device)
    objective.to(device).train()
    trainable = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    optimizer, schedule = config.optimizer.build(trainable), config.schedule.build()
    bad = bad or BadSamples(1.0)
    start = skipped = 0
    told = Bar(config.steps, 0, bar)
    if folder is not None:
        checkpoint.sweep(folder)
        if resume and checkpoint.listed(folder):
            restored = checkpoint.restore(folder, objective, optimizer, told.say)
            start, skipped = restored.step, int(restored.facts.get("skipped", 0))
            for where, why in restored.facts.get("bad", []):
                bad.note(BadSample(where, why))
            told.say(f"resuming after step {start} from {restored.path}")
    if told.progress is not None:
        told.progress.update(told.task, completed=start)
    log = Log(folder, start)
    if config.compile:
        for trunk in objective.model.trunks.values():
            for block in trunk.blocks:  # type: ignore[union-attr]
                block.compile(fullgraph=True)
    assert config.batch is not None
    order = Order(len(train), config.batch, seed, start, config.steps)  # type: ignore[arg-type]
    peak = peak_flops(device, precision)
    began = time.perf_counter()

    def save(step: int) -> None:
        if folder is not None:
            stored = {**(facts or {}), "skipped": skipped, "bad": bad.listed}
            checkpoint.save(folder, step, objective, optimizer, stored, config.keep)

    def look(step: int, batches: int | None) -> dict[str, float]:
        return evaluate(objective, held_out, config, seed, batches)

    if folder is not None and start == 0:
        save(0)
    found: dict[str, float] = {}
    step, saved = start, start
    try:
        with stopping() as stop:
            waiting = time.perf_counter()
            for batch, broken, _ in load(train, order, config.workers):
                waited = time.perf_counter() - waiting
                clock = time.perf_counter()
                for error in broken:
                    bad.note(error)
                bad.check(min((step + 1) * config.batch, len(train)))  # type: ignore[arg-type]
                record: dict[str, Any] = {"step": step + 1}
                if batch is not None:
                    batch = to_device(batch, device)
                    loss, norm, ok = _step(
                        objective, optimizer, batch, config, precision, seed, step, schedule.factor(step, config.steps)
                    )
                    skipped += not ok
                    if ok:
                        objective.after_step(step)
                    tokens = sum(_tokens(stream.values, stream.valid) for stream in batch.values())
                    record |= {name: float(a) / max(float(n), 1.0) for name, (a, n) in loss.terms.items()}
                    record["loss"] = float(loss.total) / max(float(loss.count), 1.0)
                    record["lr"] = optimizer.parts[0].param_groups[0]["lr"]
                    record["grad_norm"] = norm
                    if not ok:
                        record["skipped"] = "the loss or a gradient is not finite"
                    seconds = time.perf_counter() - clock
                    record["tokens_per_s"] = round(tokens / seconds, 1)
                    record["mfu"] = round(3 * objective.flops(batch) / seconds / peak, 4)
                    record["wait_s"] = round(waited, 5)
                    log.write(record)
                    told.step(record)
                step += 1
                last = step == config.steps
                if not last and step % (config.evaluate_every or config.steps) == 0:
                    found = look(step, config.evaluate_batches)
                    log.write({"step": step, "held_out": found})
                    told.say(_line(step, config.steps, record, found, began, start))
                    if on_look is not None:
                        on_look(step)
                if last or step % (config.save_every or config.steps) == 0:
                    save(step)
                    saved = step
                if stop and not last:
                    if saved != step:
                        save(step)
                    name = signal.Signals(stop[0]).name
                    how = f"; continue with: sevenfold train {folder} --resume" if folder is not None else ""
                    raise Preempted(f"stopped by {name} after step {step} of {config.steps}, saved{how}", stop[0])
                waiting = time.perf_counter()
        if step > start or not log.records:
            found = look(step, None)
            log.write({"step": step, "held_out": found, "final": True})
            told.say(_line(step, config.steps, {}, found, began, start))
    finally:
        log.close()
        told.close()
    if not found:
        found = next((record["held_out"] for record in reversed(log.records) if "held_out" in record), {})
    if any(not torch.isfinite(p).all() for p in trainable.values()):
        raise CheckpointError("training ended with weights that are not finite: lower train.optimizer.lr")
    return Fitted(log.records, found, time.perf_counter() - began)


def _step(
    objective: Objective,
    optimizer: Any,
    batch: Batch,
    config: TrainConfig,
    precision: Any,
    seed: int,
    step: int,
    factor: float,
) -> tuple[Loss, float, bool]:
    """One optimizer step over a batch in `accumulate` pieces → (loss over all, gradient norm, whether it was taken)."""
    rows = len(next(iter(batch.values())).values)
    size = math.ceil(rows / config.accumulate)
    losses = []
    for piece, first in enumerate(range(0, rows, size)):
        part = {name: stream.rows(slice(first, first + size)) for name, stream in batch.items()}
        torch.manual_seed(seed_of(seed, "step", step, piece))
        with autocast(precision, next(iter(batch.values())).values.device):
            loss = objective(part)
        loss.total.backward()
        losses.append(_detached(loss))
    whole = _sum(losses)
    parameters = [p for group in optimizer.parts for g in group.param_groups for p in g["params"] if p.grad is not None]
    torch._foreach_div_([p.grad for p in parameters], float(whole.count.clamp(min=1)))
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.clip))
    ok = math.isfinite(norm) and math.isfinite(float(whole.total))
    if ok:
        optimizer.step(factor)
    optimizer.zero_grad()
    return whole, norm, ok


def _detached(loss: Loss) -> Loss:
    return Loss(loss.total.detach(), loss.count.detach(), {k: (a.detach(), n) for k, (a, n) in loss.terms.items()}, {})


def _sum(losses: list[Loss]) -> Loss:
    terms: dict[str, tuple[Tensor, Tensor]] = {}
    for loss in losses:
        for name, (a, n) in loss.terms.items():
            before = terms.get(name)
            terms[name] = (a, n) if before is None else (before[0] + a, before[1] + n)
    return Loss(torch.stack([x.total for x in losses]).sum(), torch.stack([x.count for x in losses]).sum(), terms, {})


@torch.no_grad()
def evaluate(
    objective: Objective, data: Dataset, config: TrainConfig, seed: int = 0, batches: int | None = None
) -> dict[str, float]:
    """The loss and its terms over held-out items in their order: at most `batches` of them, or all."""
    device = next(objective.parameters()).device
    size = len(data)  # type: ignore[arg-type]
    batch_size = min(config.batch or 32, size)
    steps = math.ceil(size / batch_size)
    was = objective.training
    objective.eval()
    losses = []
    try:
        for place in range(steps if batches is None else min(steps, batches)):
            keys = [(0, index) for index in range(place * batch_size, min((place + 1) * batch_size, size))]
            batch, _, _ = gather([data[key] for key in keys])
            if batch is None:
                continue
            torch.manual_seed(seed_of(seed, "look", place))
            with autocast(resolve(config.precision, device), device):
                losses.append(_detached(objective(to_device(batch, device))))
    finally:
        objective.train(was)
    if not losses:
        return {}
    whole = _sum(losses)
    found = {"loss": float(whole.total) / max(float(whole.count), 1.0)}
    return found | {name: float(a) / max(float(n), 1.0) for name, (a, n) in whole.terms.items()}


@contextmanager
def stopping() -> Iterator[list[int]]:
    """Within it, the first SIGINT or SIGTERM is only noted (in the list); a second one acts at once."""
    noted: list[int] = []
    before = {}

    def note(number: int, frame: Any) -> None:
        noted.append(number)
        for known, handler in before.items():
            signal.signal(known, handler)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:
        before.clear()
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tokens(values: Tensor, valid: Tensor | None) -> int:
    return values.shape[0] * values.shape[1] if valid is None else int(valid.sum())


def _line(step: int, steps: int, record: dict[str, Any], found: dict[str, float], began: float, start: int) -> str:
    spent = time.perf_counter() - began
    left = spent / max(step - start, 1) * (steps - step)
    train = f"train {record['loss']:.4f} · " if "loss" in record else ""
    terms = " · ".join(f"{name} {value:.4f}" for name, value in found.items())
    return f"step {step}/{steps} · {train}held out: {terms} · {spent:.0f} s, {left:.0f} s left"
