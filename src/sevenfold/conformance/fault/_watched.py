"""Tries that may crash, hang or swallow memory, in a process of their own that is watched and begun again."""

from __future__ import annotations

import os
import resource
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch

from sevenfold.conformance.fault._kit import _CONTEXT
from sevenfold.core.errors import SevenfoldError

SECONDS, BYTES, PATIENCE = 10.0, 2 << 30, 10.0
Attempt = Callable[[int], Any]


class Met(NamedTuple):
    """How one try ended: our error's line (empty where there was none), what is wrong with it (hang, crash, traceback), seconds of
    work (which do not depend on what else the machine does), and the most memory that the process ever had, in bytes, beyond what it had before its first try."""

    number: int
    said: str
    wrong: str
    seconds: float
    memory: int


def watched(maker: Callable[..., Attempt], args: tuple, tries: int, seconds: float = SECONDS) -> Iterator[Met]:
    """`maker(*args)` makes the function that is tried with 0 … tries - 1."""
    start = 0
    while start < tries:
        here, there = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_serve, args=(there, maker, args, start, tries), daemon=False)
        process.start()
        there.close()
        begun = here.recv() if here.poll(120) else "does not begin"
        if begun:
            raise RuntimeError(f"{maker.__name__}: {begun}")
        wrong = ""
        try:
            while start < tries:
                if not here.poll(PATIENCE + 2 * seconds):
                    wrong = f"hangs for more than {PATIENCE + 2 * seconds:.0f} s"
                    break
                met = Met(*here.recv())
                yield met._replace(wrong=met.wrong or _too_much(met, seconds))
                start += 1
                if met.memory > BYTES:
                    break
        except EOFError:
            process.join(5)
            wrong = f"the process died ({process.exitcode})"
        process.kill()
        process.join()
        here.close()
        if wrong:
            yield Met(start, "", wrong, seconds, 0)
            start += 1


def _too_much(met: Met, seconds: float) -> str:
    if met.seconds > seconds:
        return f"takes {met.seconds:.1f} s"
    return f"takes {met.memory / 1e6:.0f} MB" if met.memory > BYTES else ""


def _serve(there: Connection, maker: Callable[..., Attempt], args: tuple, start: int, tries: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        attempt = maker(*args)
    except BaseException:
        there.send(traceback.format_exc())
        raise
    before = _most()
    there.send("")
    for number in range(start, tries):
        began, said, wrong = time.process_time(), "", ""
        try:
            attempt(number)
        except SevenfoldError as error:
            said = str(error)
            wrong = f"an error of several lines: {said!r}" if "\n" in said else "" if said.strip() else "an empty error"
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            wrong = f"{type(error).__name__} at {os.path.basename(place.filename)}:{place.lineno}: {str(error)[:160]}"
        there.send((number, said, wrong, time.process_time() - began, _most() - before))


def _most() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
