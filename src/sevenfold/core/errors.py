"""The errors a user sees: one line each, naming the place and what to do about it. All end a command with exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, NoReturn


class SevenfoldError(Exception):
    """Something the user can mend. The message is one line."""

    code: int = 2
    """With which a command ends."""
    elsewhere: bool = False
    """Whether another process says it."""


class ConfigError(SevenfoldError):
    """A recipe or a configuration that cannot work, with its dotted path."""


class DataError(SevenfoldError):
    """Data that cannot be used as a whole: a missing, empty, broken or wrong file."""


class BadSample(DataError):
    """One sample that cannot be used. The loader skips, counts and lists it.

    `where` is the file and the offset in it.
    """

    def __init__(self, where: str, why: str):
        super().__init__(f"{where}: {why}")
        self.where, self.why = where, why

    def __reduce__(self) -> Any:
        """It comes back from loader processes as it was."""
        return BadSample, (self.where, self.why)


class CheckpointError(SevenfoldError):
    """A run folder or a checkpoint that is not whole."""


class MissingExtra(SevenfoldError):
    """An optional dependency that is not installed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when something known is near, otherwise what is known."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def need_extra(package: str, extra: str, error: ImportError) -> NoReturn:
    """Say which extra brings `package`."""
    raise MissingExtra(f"{package} is not installed: pip install 'sevenfold[{extra}]'") from error
