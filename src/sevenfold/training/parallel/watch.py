"""When processes wait for each other for too long: which one they wait for, and where that stands.

Every process says a few times within the patience at which step it is, and at which line, to the store that they met in. One
that has made no step for longer than the patience reads what all say, prints it and ends: torchrun then ends the others. A
collective call waits without a word for twice as long, and then names nobody.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch.distributed as dist

from sevenfold.core.ranks import Ranks

LEFT = 3
"""Exit code of a run that was ended because it stood still."""


class Beat(NamedTuple):
    """What a process says: its step, where it stands, whether that is waiting for others, and how often it has said so."""

    step: int
    line: str
    waits: bool
    said: int


class Watch:
    """Watches over the steps of all processes from a thread."""

    def __init__(self, ranks: Ranks, patience: float):
        self.ranks, self.patience = ranks, patience
        self.step, self.since, self.paused = 0, time.monotonic(), False
        self._main, self._count, self._ended = threading.get_ident(), 0, threading.Event()
        self._store: Any = None if ranks.alone else dist.distributed_c10d._get_default_store()
        if not ranks.alone:
            threading.Thread(target=self._run, name="watch", daemon=True).start()

    def moved(self, step: int) -> None:
        """A step has ended."""
        self.step, self.since = step, time.monotonic()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Something that may take long, and is no step."""
        self.paused = True
        try:
            yield
        finally:
            self.paused, self.since = False, time.monotonic()

    def close(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        before: list[Beat] = []
        asked = 0.0
        try:
            while not self._ended.wait(self.patience / 10):
                self._count += 1
                line, waits = standing(self._main)
                self._store.set(f"beat/{self.ranks.rank}", json.dumps(Beat(self.step, line, waits, self._count)))
                if self.paused or time.monotonic() - self.since <= self.patience:
                    before = []
                elif not before:
                    before, asked = self._beats(), time.monotonic()
                elif time.monotonic() - asked > self.patience / 2:
                    line = told(before, self._beats(), self.patience)
                    print(f"sevenfold: {line}", file=sys.stderr, flush=True)  # noqa: T201 (the last word)
                    os._exit(LEFT)
        except Exception:
            return  # the others are gone, and the main thread says so

    def _beats(self) -> list[Beat]:
        keys = [f"beat/{rank}" for rank in range(self.ranks.size)]
        nothing = Beat(-1, "", False, 0)
        return [Beat(*json.loads(self._store.get(key))) if self._store.check([key]) else nothing for key in keys]


def told(before: list[Beat], after: list[Beat], patience: float) -> str:
    """Who is waited for, in a line."""
    silent = [rank for rank, (a, b) in enumerate(zip(before, after)) if a.said == b.said]
    least = min(beat.step for beat in after)
    busy = [rank for rank, beat in enumerate(after) if rank not in silent and not beat.waits]
    behind = [rank for rank, beat in enumerate(after) if beat.step == least]
    causes = silent or busy or behind
    each = [
        f"rank {rank} "
        + ("says nothing any more" if rank in silent else f"stands at {after[rank].line}")
        + f" (after step {after[rank].step})"
        for rank in causes
    ]
    others = [str(rank) for rank in range(len(after)) if rank not in causes]
    waiting = f"; waiting for it: {', '.join(others)}" if others else ""
    return f"no step for {patience:g} s: {'; '.join(each)}{waiting}"


def standing(thread: int) -> tuple[str, bool]:
    """(the line of our code at which a thread is, and what it calls there; whether it waits in a collective call)."""
    frame = sys._current_frames().get(thread)
    innermost, ours, waits = frame, frame, False
    found = False
    while frame is not None:
        name = frame.f_code.co_filename
        waits = waits or f"torch{os.sep}distributed{os.sep}" in name
        if not found and f"{os.sep}sevenfold{os.sep}" in name:
            ours, found = frame, True
        frame = frame.f_back
    if innermost is None or ours is None:
        return "nowhere", False
    call = f", in {innermost.f_code.co_name}" if innermost is not ours else ""
    return f"{os.path.basename(ours.f_code.co_filename)}:{ours.f_lineno} ({ours.f_code.co_name}{call})", waits
