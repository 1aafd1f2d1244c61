"""Commands in processes of their own, forked from one that has imported everything: they begin at once.

The one that they are forked from takes seconds to begin. Tests that need it are in the xdist group "aside": one worker has them all.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
from collections.abc import Callable
from typing import Any, NamedTuple

from sevenfold.cli import main
from sevenfold.conformance.fault._kit import begin, ended


class Done(NamedTuple):
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def command(*args: Any, first: Callable[[], Any] | None = None, timeout: float = 300) -> Done:
    """The command line; `first` (a function of a module) is called there before."""
    here, there = multiprocessing.Pipe()
    process = begin(_command, list(map(str, args)), first, there)
    there.close()
    assert here.poll(timeout)
    done = Done(*here.recv())
    assert ended(process, timeout)
    return done


def _command(args: list[str], first: Callable[[], Any] | None, there: Any) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(io.StringIO()) as told:
        if first is not None:
            first()
        code = main(args)
    there.send((code, said.getvalue(), told.getvalue()))
