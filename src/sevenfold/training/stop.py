"""Stopping in good order: the first signal is noted, so that the step under way can end and be saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sevenfold.core.errors import SevenfoldError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl+C; what ends a job; what Slurm is asked to send some time before it ends one (--signal=USR1@60)."""


class Preempted(SevenfoldError):
    """Stopped by a signal, with everything saved. The exit code is 128 + the signal's number."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.code = 128 + number


@contextmanager
def stopping() -> Iterator[list[int]]:
    """Within it, the first of SIGNALS is only noted (in the list); a second one acts at once. Outside of the main thread,
    where Python gives no signals, nothing is noted."""
    noted: list[int] = []
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, frame: Any) -> None:
        noted.append(number)
        restore()

    try:
        for number in SIGNALS:
            before[number] = signal.signal(number, note)
    except ValueError:
        before.clear()
    try:
        yield noted
    finally:
        restore()
