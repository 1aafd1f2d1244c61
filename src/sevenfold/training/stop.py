"""Stopping in good order: the first signal is noted, so that the step under way can end and be saved; one that does not end
in time is left."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sevenfold.core.errors import SevenfoldError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl+C; what ends a job; what Slurm is asked to send some time before it ends one (--signal=USR1@60)."""
GRACE = 18.0
"""Seconds for the step under way (and its compilation): torchrun and Slurm kill after 30."""


class Preempted(SevenfoldError):
    """Stopped by a signal, with everything saved. The exit code is 128 + the signal's number."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.code = 128 + number


class Overdue(BaseException):
    """The step under way did not end in time. No Exception, so that nobody on the way takes it for theirs."""


@contextmanager
def stopping(where: Callable[[], str] = str, grace: float = GRACE) -> Iterator[list[int]]:
    """Within it, the first of SIGNALS is only noted (in the list); a second one acts at once. Outside of the main thread,
    where Python gives no signals, nothing is noted.

    What still goes on `grace` seconds after the first is left there: Preempted, which says `where()`. What was being written
    is as it was before.
    """
    noted: list[int] = []
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, frame: Any) -> None:
        noted.append(number)
        restore()
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, leave)
        signal.setitimer(signal.ITIMER_REAL, grace)

    def leave(number: int, frame: Any) -> None:
        raise Overdue

    try:
        for number in SIGNALS:
            before[number] = signal.signal(number, note)
    except ValueError:
        before.clear()
    try:
        yield noted
    except Overdue:
        raise Preempted(f"stopped by {signal.Signals(noted[0]).name} {where()}", noted[0]) from None
    finally:
        if noted:
            signal.setitimer(signal.ITIMER_REAL, 0)
        restore()
