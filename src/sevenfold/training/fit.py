"""The only loop.

    for each step:  batch -> objective -> gradients of the sum / count -> clip -> optimizer -> objective.after_step

It knows an Objective and nothing else. Sums and counts make accumulation exact; every random choice is seeded from
(seed, step), so a run that is killed and resumed gives the losses and weights, bit for bit, of one that was not.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sevenfold.assembly.adapter import need_gradients
from sevenfold.assembly.model import to_device
from sevenfold.core.errors import BadSample, CheckpointError
from sevenfold.core.seeds import seed_of
from sevenfold.core.types import Batch, Loss
from sevenfold.data.bad import BadSamples
from sevenfold.data.loader import Order, Samples, gather, load
from sevenfold.objective import Objective
from sevenfold.training import checkpoint
from sevenfold.training.allocator import keep_freed
from sevenfold.training.cached import through_pieces
from sevenfold.training.compiled import compile_blocks
from sevenfold.training.log import Bar, Log
from sevenfold.training.precision import autocast, peak_flops, resolve
from sevenfold.training.recipe import TrainConfig, device_of
from sevenfold.training.recomputed import recompute_blocks
from sevenfold.training.stop import Preempted, stopping

LASTS, LASTS_LONG = 30, 500
"""Steps in a row with a warning after which it is said, and then again and again."""


class Fitted(NamedTuple):
    """What a finished fit tells: its log, the last held-out terms, seconds spent in this process, and how many steps
    were not taken because the loss or a gradient was not finite."""

    log: list[dict[str, Any]]
    held_out: dict[str, float]
    seconds: float
    skipped: int


def fit(
    objective: Objective,
    train: Samples,
    held_out: Samples,
    config: TrainConfig,
    *,
    seed: int = 0,
    folder: Path | None = None,
    resume: bool = False,
    bad: BadSamples | None = None,
    on_look: Callable[[int], None] | None = None,
    bar: bool | None = None,
) -> Fitted:
    """Train `objective` on `train` for config.steps steps, looking at `held_out` on the way.

    folder   where checkpoints and the log go; None keeps everything in memory
    resume   continue from the newest whole checkpoint in `folder`
    bad      the ledger of samples that cannot be read
    on_look  called after each look at the held-out loss
    bar      show a progress bar; by default when the output is a terminal

    Raises Preempted after saving, when SIGINT or SIGTERM arrives; DataError when too many samples are bad;
    CheckpointError when a checkpoint cannot be written or read, or the weights are not finite any more.
    """
    with ExitStack() as ends:
        device = device_of(config.device)
        keep_freed(device)
        precision = resolve(config.precision, device)
        objective.to(device).train()
        trainable = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        optimizer, schedule = config.optimizer.build(trainable, objective.cares()), config.schedule.build()
        bad = BadSamples(1.0) if bad is None else bad
        told = ends.enter_context(closing(Bar(config.steps, bar, objective.watched)))
        start = skipped = 0
        saved = -1
        if folder is not None:
            checkpoint.sweep(folder)
            if checkpoint.listed(folder):
                if not resume:
                    raise CheckpointError(f"{folder}: already holds checkpoints: resume, or choose another folder")
                restored = checkpoint.restore(folder, objective, optimizer, told.say)
                start = saved = restored.step
                skipped = restored.skipped
                for where, why in restored.bad:
                    bad.note(BadSample(where, why))
                told.say(f"resuming after step {start} from {restored.path}")
        told.begin(start)
        log = ends.enter_context(closing(Log(folder, start)))
        if config.recompute:
            recompute_blocks(objective.model)
        if config.compile:
            ends.enter_context(compile_blocks(objective.model))
        assert config.batch is not None
        order = Order(len(train), config.batch, seed, start, config.steps)
        peak = peak_flops(device, precision)
        began = time.perf_counter()

        def save(step: int) -> None:
            if any(not torch.isfinite(p).all() for p in trainable.values()):
                raise CheckpointError(f"after step {step} the weights are not finite: lower train.optimizer.lr")
            if folder is not None and step != saved:
                checkpoint.save(folder, step, objective, optimizer, skipped, bad.listed, config.keep)

        def look(step: int, batches: int | None, **more: Any) -> dict[str, float]:
            found = evaluate(objective, held_out, config, seed, batches, None if batches else bad)
            wrong = objective.warnings(found)
            log.write({"step": step, "held_out": found, **({"warnings": wrong} if wrong else {}), **more})
            for line in wrong:
                told.say(f"warning, after step {step}: {line}")
            return found

        step, wrong_for = start, 0
        with stopping() as stop:
            if saved < 0:
                save(0)
                saved = 0
            waiting = time.perf_counter()
            for batch, broken, _ in load(train, order, config.workers):
                clock = time.perf_counter()
                record: dict[str, Any] = {"step": step + 1}
                for error in broken:
                    bad.note(error)
                bad.check(len(train))
                if batch is None:
                    record["skipped"] = "no sample of this batch can be read"
                else:
                    batch = to_device(batch, device)
                    factor = schedule.factor(step, config.steps)
                    loss, norm, ok = take_step(objective, optimizer, batch, config, precision, seed, step, factor)
                    if ok:
                        objective.after_step(step, config.steps)
                    else:
                        skipped += 1
                        record["skipped"] = "the loss or a gradient is not finite"
                    tokens = sum(_tokens(stream.values, stream.valid) for stream in batch.values())
                    record |= means([loss])
                    record["lr"] = config.optimizer.lr * factor
                    record["grad_norm"] = norm
                    seconds = time.perf_counter() - clock
                    record["tokens_per_s"] = round(tokens / seconds, 1)
                    record["mfu"] = round(3 * objective.flops(batch) / seconds / peak, 4)
                    record["wait_s"] = round(clock - waiting, 5)
                    wrong = objective.warnings(record)
                    wrong_for = wrong_for + 1 if wrong else 0
                    if wrong_for == LASTS or wrong_for and wrong_for % LASTS_LONG == 0:
                        record["warnings"] = wrong
                        for line in wrong:
                            told.say(f"warning, for {wrong_for} steps until {step + 1}: {line}")
                log.write(record)
                told.step(record)
                step += 1
                last = step == config.steps
                if not last and step % (config.evaluate_every or config.steps) == 0:
                    found = look(step, config.evaluate_batches)
                    told.say(_line(step, config.steps, record, found, began, start))
                    if on_look is not None:
                        on_look(step)
                if last or stop or step % (config.save_every or config.steps) == 0:
                    save(step)
                    saved = step
                if stop:
                    name = signal.Signals(stop[0]).name
                    how = f", saved; continue with: sevenfold train {folder} --resume" if folder is not None else ""
                    raise Preempted(f"stopped by {name} after step {step} of {config.steps}{how}", stop[0])
                waiting = time.perf_counter()
        objective.product()  # in no checkpoint: what is trained goes on from the weights that were trained
        found = look(step, None, final=True)
        told.say(_line(step, config.steps, {}, found, began, start))
        return Fitted(log.records, found, time.perf_counter() - began, skipped)


def take_step(
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
    first = next(iter(batch.values())).values
    size = math.ceil(len(first) / config.accumulate)
    torch.manual_seed(seed_of(seed, "draw", step))
    drawn = objective.draw(batch)
    losses = []
    pieces = [(slice(begin, begin + size), seed_of(seed, "step", step, begin)) for begin in range(0, len(first), size)]
    if objective.cached and len(pieces) > 1:
        context, own = partial(autocast, precision, first.device), seed_of(seed, "compare", step)
        losses, pieces = [_detached(through_pieces(objective, batch, drawn, pieces, own, context))], []
    for rows, own in pieces:
        torch.manual_seed(own)
        with autocast(precision, first.device):
            loss = objective(
                {name: stream.rows(rows) for name, stream in batch.items()},
                {name: choice[rows] for name, choice in drawn.items()},
            )
        if loss.total.requires_grad:
            loss.total.backward()
        losses.append(_detached(loss))
    whole = _sum(losses)
    if not step and float(whole.count):
        need_gradients(objective.model, f"{objective.kind} in the first step")
    parameters = [p for group in optimizer.parts for g in group.param_groups for p in g["params"] if p.grad is not None]
    if parameters:
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


def means(losses: list[Loss]) -> dict[str, float]:
    """The loss of some batches and its terms; those without any target (count 0) are left out."""
    if not losses:
        return {}
    loss = _sum(losses)
    sums = {"loss": (loss.total, loss.count), **loss.terms}
    return {name: float(total) / float(count) for name, (total, count) in sums.items() if float(count) > 0}


def evaluate(
    objective: Objective,
    data: Samples,
    config: TrainConfig,
    seed: int = 0,
    batches: int | None = None,
    bad: BadSamples | None = None,
) -> dict[str, float]:
    """The loss and its terms over held-out items in their order: at most `batches` of them, or all.

    `bad` is told of those that cannot be read.
    """
    return means(looked(objective, data, config, seed, batches, bad))


@torch.no_grad()
def looked(
    objective: Objective,
    data: Samples,
    config: TrainConfig,
    seed: int = 0,
    batches: int | None = None,
    bad: BadSamples | None = None,
) -> list[Loss]:
    """The loss of each batch of held-out items, as in `evaluate`; none of a batch of which nothing can be read."""
    device = next(objective.parameters()).device
    size = len(data)
    batch_size = min(config.batch or 32, size)
    steps = math.ceil(size / batch_size)
    was = objective.training
    objective.eval()
    losses = []
    try:
        for place in range(steps if batches is None else min(steps, batches)):
            keys = [(0, index) for index in range(place * batch_size, min((place + 1) * batch_size, size))]
            batch, broken, _ = gather([data[key] for key in keys])
            if bad is not None:
                for error in broken:
                    bad.note(error)
            if batch is None:
                continue
            torch.manual_seed(seed_of(seed, "look", place))
            with autocast(resolve(config.precision, device), device):
                losses.append(_detached(objective(to_device(batch, device))))
    finally:
        objective.train(was)
    return losses


def _tokens(values: Tensor, valid: Tensor | None) -> int:
    return values.shape[0] * values.shape[1] if valid is None else int(valid.sum())


def _line(step: int, steps: int, record: dict[str, Any], found: dict[str, float], began: float, start: int) -> str:
    spent = time.perf_counter() - began
    left = spent / max(step - start, 1) * (steps - step)
    train = f"train {record['loss']:.4f} · " if "loss" in record else ""
    terms = " · ".join(f"{name} {value:.4f}" for name, value in found.items())
    return f"step {step}/{steps} · {train}held out: {terms} · {spent:.0f} s, {left:.0f} s left"
