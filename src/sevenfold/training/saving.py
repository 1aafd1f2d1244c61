"""Saving while training goes on: a copy is taken at once, and written by a thread.

At most one is under way; what goes wrong is said when the next one begins, or at the end.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sevenfold.core.ranks import Ranks
from sevenfold.training import checkpoint
from sevenfold.training.checkpoint import Snapshot

CPU = torch.device("cpu")
PATIENCE = 15.0
"""Seconds that an error waits for what is being written."""


class Saver:
    """Writes the checkpoints of a run."""

    def __init__(self, run: Path, every: Ranks, keep: int):
        self.run, self.keep = run, keep
        self.done = -1
        """The step of the last one that is whole."""
        self.ranks = every if every.alone else every._replace(group=dist.new_group(backend="gloo"), device=CPU)
        self._thread: threading.Thread | None = None
        self._failed: BaseException | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: Any, *more: Any) -> None:
        """What is under way is written, unless somebody is in a hurry."""
        if self._thread is not None and kind is not KeyboardInterrupt:
            self._thread.join(None if kind is None else PATIENCE)

    def start(self, taken: Snapshot, spared: int) -> None:
        """Begin to write it, when the one before is written."""
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(taken, spared), name="saver", daemon=True)
        self._thread.start()

    def _write(self, taken: Snapshot, spared: int) -> None:
        try:
            checkpoint.write(self.run, taken, self.ranks, self.keep, spared)
            self.done = taken.step
        except BaseException as error:
            self._failed = error

    def wait(self) -> None:
        """Until what was begun is written. Raises what went wrong with it (CheckpointError)."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
