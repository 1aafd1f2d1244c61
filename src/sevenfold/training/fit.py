"""The only loop.

    for each step:  batch -> objective -> gradients of the sum / count -> clip -> optimizer -> objective.after_step

It knows an Objective and nothing else. Sums and counts make accumulation exact; every random choice is seeded from
(seed, step), so a run that is killed and resumed gives the losses and weights, bit for bit, of one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sevenfold.assembly.model import to_device
from sevenfold.core.errors import BadSample
from sevenfold.core.types import Batch, Stream
from sevenfold.data.bad import BadSamples
from sevenfold.data.loader import Order, Samples, load
from sevenfold.objective import Objective
from sevenfold.training.compiled import bucketed
from sevenfold.training.look import evaluate
from sevenfold.training.parallel import Parallel
from sevenfold.training.parallel.rows import agree_on_batch, over_ranks, stopped_by
from sevenfold.training.recipe import TrainConfig
from sevenfold.training.state import State
from sevenfold.training.step import take_step
from sevenfold.training.stop import stopping

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
        run = State(objective, config, seed, folder, BadSamples(1.0) if bad is None else bad)
        run.begin(ends, resume, bar, parallel)
        guard = run.guard
        with stopping(run.overdue) as signals:
            if run.saved < 0:
                run.save_first()
            waiting = time.perf_counter()
            for batch, broken, _ in guard.through(partial(_batches, run, train)):
                record = _step(run, batch, broken, len(train) + len(held_out), waiting)
                run.log.write(record)
                run.bar.step(record)
                run.step += 1
                run.watch.moved(run.step)
                stopped = stopped_by(signals)
                last = run.step == config.steps
                regular = last or run.every(config.save_every) and not guard.in_a_row
                looks = not last and run.every(config.evaluate_every)
                if regular or looks or stopped:
                    guard.weigh(run.finite())
                if guard.lost:
                    run.go_back()
                    waiting = time.perf_counter()
                    continue
                if looks:
                    _say(run, _look(run, held_out, config.evaluate_batches), record)
                    if on_look is not None:
                        with run.watch.pause():
                            on_look(run.step)
                    stopped = stopped or stopped_by(signals)
                if regular or stopped:
                    run.save(good=regular)
                if stopped:
                    raise run.preempted(stopped)
                waiting = time.perf_counter()
            run.written()
            objective.product()  # in no checkpoint: what is trained goes on from the weights that were trained
            found = _look(run, held_out, None, final=True)
            _say(run, found, {})
        return Fitted(run.log.records, found, time.perf_counter() - run.began, run.skipped)


def _batches(run: State, train: Samples) -> Iterable[Any]:
    """What is read from the next step on."""
    config, others, passed = run.config, run.mesh.data, run.guard.passed
    assert config.batch is not None
    begin, end, part = run.step + passed, config.steps + passed, (others.rank, others.size)
    order = Order(len(train), config.batch, run.seed, begin, end, part=part, arranged=train.arranged)
    return load(train, order, config.workers)


def _step(run: State, batch: Batch | None, broken: Sequence[BadSample], samples: int, waiting: float) -> dict[str, Any]:
    """One step, unless the guard leaves it out; its record for the log. The batch, of so many samples in all, was waited for since
    `waiting`."""
    clock = time.perf_counter()
    objective, config, guard = run.objective, run.config, run.guard
    record: dict[str, Any] = {"step": run.step + 1, **run.turned}
    run.turned = {}
    batch, broken = agree_on_batch(None if batch is None else to_device(batch, run.device), broken)
    for error in broken:
        run.bad.note(error)
    run.bad.check(samples)
    if batch is None:
        return record | {"skipped": "no sample of this batch can be read"}
    factor = run.schedule.factor(run.step, config.steps)
    padded = bucketed(objective.model, batch) if config.compile else batch
    loss, norm, taken = take_step(
        objective, run.optimizer, padded, config, run.precision, run.seed, run.step, factor, guard.accepts, run.gradients
    )  # fmt: skip
    if taken:
        objective.after_step(run.step, config.steps)
    else:
        run.skipped += 1
        record["skipped"] = guard.why
        run.bar.say(f"step {run.step + 1} is left out: {guard.why}")
    losses, tokens, flops = over_ranks(loss, sum(map(_tokens, batch.values())), objective.flops(batch))
    seconds = time.perf_counter() - clock
    record |= losses | {
        "lr": config.optimizer.lr * factor,
        "grad_norm": norm,
        "tokens_per_s": round(tokens / seconds, 1),
        "mfu": round(3 * flops / seconds / run.peak / run.mesh.every.size, 4),
        "wait_s": round(clock - waiting, 5),
    }
    wrong = objective.warnings(record)
    run.warned = run.warned + 1 if wrong else 0
    if run.warned == LASTS or run.warned and run.warned % LASTS_LONG == 0:
        record["warnings"] = wrong
        for line in wrong:
            run.bar.say(f"warning, for {run.warned} steps until {run.step + 1}: {line}")
    return record


def _look(run: State, held_out: Samples, batches: int | None, **more: Any) -> dict[str, float]:
    """The held-out loss and its terms over so many batches, or all; logged."""
    with run.watch.pause():
        found = evaluate(run.objective, held_out, run.config, run.seed, batches, None if batches else run.bad)
    wrong = run.objective.warnings(found)
    run.log.write({"step": run.step, "held_out": found, **({"warnings": wrong} if wrong else {}), **more})
    for line in wrong:
        run.bar.say(f"warning, after step {run.step}: {line}")
    return found


def _say(run: State, found: dict[str, float], record: dict[str, Any]) -> None:
    """How far the run is, and the losses of the last step and look."""
    spent, steps = time.perf_counter() - run.began, run.config.steps
    left = spent / max(run.step - run.start, 1) * (steps - run.step)
    train = f"train {record['loss']:.4f} · " if "loss" in record else ""
    terms = " · ".join(f"{name} {value:.4f}" for name, value in found.items())
    run.bar.say(f"step {run.step}/{steps} · {train}held out: {terms} · {spent:.0f} s, {left:.0f} s left")


def _tokens(stream: Stream) -> int:
    """Tokens that are no padding."""
    rows, length = stream.values.shape[:2]
    return rows * length if stream.valid is None else int(stream.valid.sum())
