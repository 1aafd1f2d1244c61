"""A run under way: what is trained, how far it has come, and its checkpoints. The loop itself is `fit`."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sevenfold.core import ranks
from sevenfold.core.errors import BadSample, CheckpointError
from sevenfold.core.ranks import own
from sevenfold.data.bad import BadSamples
from sevenfold.objective import Objective
from sevenfold.training import checkpoint
from sevenfold.training.allocator import keep_freed
from sevenfold.training.compiled import compile_blocks
from sevenfold.training.float8 import float8_blocks
from sevenfold.training.guard import Guard
from sevenfold.training.log import Bar, Log, Silent
from sevenfold.training.parallel import Parallel, late
from sevenfold.training.parallel.gradients import Gradients
from sevenfold.training.parallel.tensor import cut, placement
from sevenfold.training.parallel.watch import Watch
from sevenfold.training.precision import peak_flops, resolve
from sevenfold.training.recipe import TrainConfig, device_of
from sevenfold.training.recomputed import recompute_blocks
from sevenfold.training.saving import Saver
from sevenfold.training.stop import Preempted


class State:
    """What the loop works with and what it changes: weights, optimizer, guard, log, and the number of the step."""

    def __init__(self, objective: Objective, config: TrainConfig, seed: int, folder: Path | None, bad: BadSamples):
        self.objective, self.config, self.seed, self.folder, self.bad = objective, config, seed, folder, bad
        self.device = device_of(config.device)
        self.precision = resolve(config.precision, self.device)
        self.peak = peak_flops(self.device, self.precision)
        self.mesh = ranks.mesh()
        self.schedule = config.schedule.build()
        self.guard = Guard(config.guard)
        self.step = self.start = self.skipped = self.warned = 0
        """Steps made; made before this process began; left out; in a row with a warning."""
        self.saved = -1
        """The step of the last checkpoint, which may still be being written."""
        self.turned: dict[str, Any] = {}
        """That the run has just gone back, for the log of the next step."""

    def begin(self, ends: ExitStack, resume: bool, bar: bool | None, parallel: Parallel) -> None:
        """Lay the weights out over devices and processes, take over a checkpoint, and open all that is closed by `ends`."""
        objective, config, every = self.objective, self.config, self.mesh.every
        keep_freed(self.device)
        if not self.mesh.tensor.alone:
            cut(objective, self.mesh.tensor)
        if parallel.shard and not every.alone:
            late("sharding").shard(objective, self.mesh)
        objective.to(self.device).train()
        self.trainable = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        self.optimizer = config.optimizer.build(self.trainable, objective.cares(), placement(objective).cut)
        self.gradients = ends.enter_context(closing(Gradients(objective, self.mesh)))
        shown = Bar(config.steps, bar, objective.watched) if every.first else Silent()
        self.bar = ends.enter_context(closing(shown))
        self.saver = None if self.folder is None else ends.enter_context(Saver(self.folder, every, config.keep))
        if self.folder is not None:
            every.once(partial(checkpoint.sweep, self.folder))
            if checkpoint.listed(self.folder):
                self._resume(self.folder, resume)
        self.bar.begin(self.start)
        self.log = ends.enter_context(closing(Log(self.folder if every.first else None, self.start)))
        if config.recompute:
            recompute_blocks(objective.model)
        if self.precision == "fp8":
            float8_blocks(objective.model)
        if config.compile:
            ends.enter_context(compile_blocks(objective.model))
        self.watch = ends.enter_context(closing(Watch(every, parallel.patience)))
        self.began = time.perf_counter()

    def _resume(self, folder: Path, asked: bool) -> None:
        """Take over the newest whole checkpoint, if that is asked for."""
        if not asked:
            raise CheckpointError(f"{folder}: already holds checkpoints: resume, or choose another folder")
        found = checkpoint.restore(folder, self.objective, self.optimizer, self.bar.say)
        self.step = self.start = self.saved = found.step
        self.skipped = found.skipped
        self.guard.restore(found.guard, str(found.path))
        if self.saver is not None:
            self.saver.done = found.step
        for where, why in found.bad:
            self.bad.note(BadSample(where, why))
        self.bar.say(f"resuming after step {found.step} from {found.path}")

    def every(self, steps: int | None) -> bool:
        """Whether this many steps have passed again; None: those of the whole run."""
        return self.step % (steps or self.config.steps) == 0

    def finite(self) -> bool:
        """Whether all weights and buffers are, on all processes."""
        moved = [buffer for buffer in self.objective.buffers() if buffer.is_floating_point()]
        return self.mesh.every.all(all(torch.isfinite(own(x)).all() for x in [*self.trainable.values(), *moved]))

    def save_first(self) -> None:
        """A checkpoint of the first weights, whole before loader processes are made."""
        if not self.finite():
            raise CheckpointError("the weights are not finite before the first step: begin from others")
        self.save(good=False)
        self.written()

    def save(self, good: bool) -> None:
        """Begin to write a checkpoint of weights that are finite; `good`: one that the guard may go back to."""
        if self.saver is not None:
            self.guard.good = self.step if good else self.guard.good
            if self.step != self.saved:
                taken = checkpoint.snapshot(
                    self.step, self.objective, self.optimizer, self.skipped, self.bad.listed, self.guard.state()
                )
                with self.watch.pause():
                    self.saver.start(taken, self.guard.good)
        self.saved = self.step

    def written(self) -> None:
        """Wait until the checkpoint is written."""
        if self.saver is not None:
            with self.watch.pause():
                self.saver.wait()

    def go_back(self) -> None:
        """Take over an earlier checkpoint, and go on from there with other data; Diverged where that is no help."""
        step, why = self.step, self.guard.why
        self.step = self.saved = self.guard.go_back(step, None if self.folder is None else self._restore)
        self.bar.say(f"going back from step {step} to {self.step}, and on with other data: {why}")
        self.turned = {"went_back": {"from": step, "to": self.step, "why": why}}
        self.log.back(self.step)
        self.bar.begin(self.step)

    def _restore(self, most: int) -> int:
        """Take over the newest whole checkpoint of at most step `most`; its step."""
        assert self.folder is not None
        self.written()
        found = checkpoint.restore(self.folder, self.objective, self.optimizer, self.bar.say, most)
        self.guard.restore(found.guard, str(found.path))
        return found.step

    def preempted(self, number: int) -> Preempted:
        """How a run ends that a signal has stopped, once all is written."""
        self.written()
        done = ", saved" if self.folder is not None else ""
        name = signal.Signals(number).name
        return Preempted(
            f"stopped by {name} after step {self.step} of {self.config.steps}{done}{self._how_to_continue()}", number
        )

    def overdue(self) -> str:
        """Where a run stands whose step did not end in time."""
        saved = self.saved if self.saver is None else self.saver.done
        return f"in step {self.step + 1}, which did not end in time; saved is step {saved}{self._how_to_continue()}"

    def _how_to_continue(self) -> str:
        return f"; continue with: sevenfold train {self.folder} --resume" if self.folder is not None else ""
