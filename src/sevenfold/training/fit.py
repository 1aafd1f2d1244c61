"""The only loop.

    for each step:  batch -> objective -> gradients of the sum / count -> clip -> optimizer -> objective.after_step

It knows an Objective and nothing else. Sums and counts make accumulation exact; every random choice is seeded from
(seed, step), so a run that is killed and resumed gives the losses and weights, bit for bit, of one that was not.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sevenfold.assembly.model import to_device
from sevenfold.core import ranks
from sevenfold.core.errors import BadSample, CheckpointError
from sevenfold.core.ranks import own
from sevenfold.data.bad import BadSamples
from sevenfold.data.loader import Order, Samples, load
from sevenfold.objective import Objective
from sevenfold.training import checkpoint
from sevenfold.training.allocator import keep_freed
from sevenfold.training.compiled import bucketed, compile_blocks
from sevenfold.training.float8 import float8_blocks
from sevenfold.training.guard import Guard
from sevenfold.training.log import Bar, Log, Silent
from sevenfold.training.look import evaluate
from sevenfold.training.parallel import Parallel, late
from sevenfold.training.parallel.gradients import Gradients
from sevenfold.training.parallel.rows import of_all, stopped_by, together
from sevenfold.training.parallel.tensor import cut, placement
from sevenfold.training.parallel.watch import Watch
from sevenfold.training.precision import peak_flops, resolve
from sevenfold.training.recipe import TrainConfig, device_of
from sevenfold.training.recomputed import recompute_blocks
from sevenfold.training.saving import Saver
from sevenfold.training.step import take_step
from sevenfold.training.stop import Preempted, stopping

LASTS, LASTS_LONG = 30, 500
"""Steps in a row with a warning after which it is said, and then again and again."""


class Fitted(NamedTuple):
    """What a finished fit tells: its log, the last held-out terms, seconds spent in this process, and how many steps
    were left out (config.guard)."""

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
    parallel: Parallel = Parallel(),  # noqa: B008
) -> Fitted:
    """Train `objective` on `train` for config.steps steps, looking at `held_out` on the way; among other processes, with them.

    folder   where checkpoints and the log go; None keeps everything in memory
    resume   continue from the newest whole checkpoint in `folder`
    bad      the ledger of samples that cannot be read
    on_look  called after each look at the held-out loss
    bar      show a progress bar; by default when the output is a terminal
    parallel how the processes that were `joined` share the work

    Raises Preempted after saving, when SIGINT, SIGTERM or SIGUSR1 arrives; DataError when too many samples are bad;
    CheckpointError when a checkpoint cannot be written or read; Diverged when going back did not help (config.guard).
    """
    with ExitStack() as ends:
        device = device_of(config.device)
        keep_freed(device)
        precision = resolve(config.precision, device)
        mesh, others = ranks.mesh(), ranks.data()
        if not mesh.tensor.alone:
            cut(objective, mesh.tensor)
        if parallel.shard and not mesh.every.alone:
            late("sharding").shard(objective, mesh)
        objective.to(device).train()
        trainable = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        optimizer = config.optimizer.build(trainable, objective.cares(), placement(objective).cut)
        schedule = config.schedule.build()
        bad = BadSamples(1.0) if bad is None else bad
        gradients = ends.enter_context(closing(Gradients(objective, mesh)))
        told = ends.enter_context(closing(Bar(config.steps, bar, objective.watched) if mesh.every.first else Silent()))
        guard = Guard(config.guard)
        start = skipped = 0
        saved = -1
        saver = None if folder is None else ends.enter_context(Saver(folder, mesh.every, config.keep))
        if folder is not None and saver is not None:
            mesh.every.once(partial(checkpoint.sweep, folder))
            if checkpoint.listed(folder):
                if not resume:
                    raise CheckpointError(f"{folder}: already holds checkpoints: resume, or choose another folder")
                restored = checkpoint.restore(folder, objective, optimizer, told.say)
                start = saved = saver.done = restored.step
                skipped = restored.skipped
                guard.restore(restored.guard, str(restored.path))
                for where, why in restored.bad:
                    bad.note(BadSample(where, why))
                told.say(f"resuming after step {start} from {restored.path}")
        told.begin(start)
        log = ends.enter_context(closing(Log(folder if mesh.every.first else None, start)))
        if config.recompute:
            recompute_blocks(objective.model)
        if precision == "fp8":
            float8_blocks(objective.model)
        if config.compile:
            ends.enter_context(compile_blocks(objective.model))
        assert config.batch is not None
        size = config.batch
        peak = peak_flops(device, precision)
        watch = ends.enter_context(closing(Watch(mesh.every, parallel.patience)))
        began = time.perf_counter()

        def finite() -> bool:
            moved = [buffer for buffer in objective.buffers() if buffer.is_floating_point()]
            return mesh.every.all(all(torch.isfinite(own(x)).all() for x in [*trainable.values(), *moved]))

        def save(step: int) -> None:
            if not finite():
                raise CheckpointError(f"after step {step} the weights are not finite: lower train.optimizer.lr")
            if saver is not None and step != saved:
                taken = checkpoint.snapshot(step, objective, optimizer, skipped, bad.listed, guard.state())
                with watch.pause():
                    saver.start(taken, guard.good)

        def written() -> None:
            if saver is not None:
                with watch.pause():
                    saver.wait()

        def back(most: int) -> int:
            assert folder is not None
            written()
            found = checkpoint.restore(folder, objective, optimizer, told.say, most)
            guard.restore(found.guard, str(found.path))
            return found.step

        def feed() -> Iterable[Any]:
            begin, end, part = step + guard.passed, config.steps + guard.passed, (others.rank, others.size)
            order = Order(len(train), size, seed, begin, end, part=part, arranged=train.arranged)
            return load(train, order, config.workers)

        def look(step: int, batches: int | None, **more: Any) -> dict[str, float]:
            with watch.pause():
                found = evaluate(objective, held_out, config, seed, batches, None if batches else bad)
            wrong = objective.warnings(found)
            log.write({"step": step, "held_out": found, **({"warnings": wrong} if wrong else {}), **more})
            for line in wrong:
                told.say(f"warning, after step {step}: {line}")
            return found

        how = f"; continue with: sevenfold train {folder} --resume" if folder is not None else ""
        step, wrong_for = start, 0
        turned: dict[str, Any] = {}
        with stopping(
            lambda: (
                f"in step {step + 1}, which did not end in time; saved is step {saved if saver is None else saver.done}{how}"
            )
        ) as stop:
            if saved < 0:
                save(0)
                written()  # before loader processes are made
                saved = 0
            waiting = time.perf_counter()
            for batch, broken, _ in guard.through(feed):
                clock = time.perf_counter()
                record: dict[str, Any] = {"step": step + 1, **turned}
                turned = {}
                batch = None if batch is None else to_device(batch, device)
                batch, broken = together(batch, broken)
                for error in broken:
                    bad.note(error)
                bad.check(len(train))
                if batch is None:
                    record["skipped"] = "no sample of this batch can be read"
                else:
                    factor = schedule.factor(step, config.steps)
                    padded = bucketed(objective.model, batch) if config.compile else batch
                    loss, norm, ok = take_step(
                        objective, optimizer, padded, config, precision, seed, step, factor, guard.accepts, gradients
                    )
                    if ok:
                        objective.after_step(step, config.steps)
                    else:
                        skipped += 1
                        record["skipped"] = guard.why
                        told.say(f"step {step + 1} is left out: {guard.why}")
                    own_tokens = sum(_tokens(stream.values, stream.valid) for stream in batch.values())
                    losses, tokens, flops = of_all(loss, own_tokens, objective.flops(batch))
                    record |= losses
                    record["lr"] = config.optimizer.lr * factor
                    record["grad_norm"] = norm
                    seconds = time.perf_counter() - clock
                    record["tokens_per_s"] = round(tokens / seconds, 1)
                    record["mfu"] = round(3 * flops / seconds / peak / mesh.every.size, 4)
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
                watch.moved(step)
                stopped = stopped_by(stop)
                last = step == config.steps
                regular = step % (config.save_every or config.steps) == 0 and not guard.in_a_row
                due = last or regular or bool(stopped)
                if due:
                    guard.weigh(finite())
                if guard.lost:
                    to = guard.go_back(step, None if folder is None else back)
                    told.say(f"going back from step {step} to {to}, and on with other data: {guard.why}")
                    turned = {"went_back": {"from": step, "to": to, "why": guard.why}}
                    step = saved = to
                    log.back(step)
                    told.begin(step)
                    waiting = time.perf_counter()
                    continue
                if not last and step % (config.evaluate_every or config.steps) == 0:
                    found = look(step, config.evaluate_batches)
                    told.say(_line(step, config.steps, record, found, began, start))
                    if on_look is not None:
                        with watch.pause():
                            on_look(step)
                    stopped = stopped_by(stop)
                if due or stopped:
                    guard.good = step if saver is not None and (regular or last) else guard.good
                    save(step)
                    saved = step
                if stopped:
                    name = signal.Signals(stopped).name
                    written()
                    done = ", saved" if folder is not None else ""
                    raise Preempted(f"stopped by {name} after step {step} of {config.steps}{done}{how}", stopped)
                waiting = time.perf_counter()
        written()
        objective.product()  # in no checkpoint: what is trained goes on from the weights that were trained
        found = look(step, None, final=True)
        told.say(_line(step, config.steps, {}, found, began, start))
        return Fitted(log.records, found, time.perf_counter() - began, skipped)


def _tokens(values: Tensor, valid: Tensor | None) -> int:
    return values.shape[0] * values.shape[1] if valid is None else int(valid.sum())


def _line(step: int, steps: int, record: dict[str, Any], found: dict[str, float], began: float, start: int) -> str:
    spent = time.perf_counter() - began
    left = spent / max(step - start, 1) * (steps - step)
    train = f"train {record['loss']:.4f} · " if "loss" in record else ""
    terms = " · ".join(f"{name} {value:.4f}" for name, value in found.items())
    return f"step {step}/{steps} · {train}held out: {terms} · {spent:.0f} s, {left:.0f} s left"
