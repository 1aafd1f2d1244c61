"""The conformance kit: what every part of a room must do, checked for any part without a line of test being added.

    from sevenfold import conformance

    for result in conformance.run("mixing", "attention"):
        print(result.name, result.ok, result.message or result.skipped_why)

`every.py` holds for all rooms; a room's own file has its name. A check is a function `check_x(config)` on a part's
Config (whose class is `config.part`): it returns, raises, or skips. It runs with the default settings and with each of
the part's `variants`. Parts of other installed packages are checked in the same way (`sevenfold check mylab_mixer`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sevenfold.conformance._kit import Failed, Skipped
from sevenfold.core import part
from sevenfold.core.errors import SevenfoldError
from sevenfold.core.rooms import folder

Check = Callable[[Any], None]


class Result(NamedTuple):
    """What came of one check. `ok` is True where it was skipped; then `skipped_why` says why."""

    name: str
    ok: bool
    message: str = ""
    skipped_why: str = ""


def checks_for(room: str) -> dict[str, Check]:
    """The checks of a room: name → function."""
    folder(room)
    found = _checks("every")
    if (Path(__file__).parent / f"{room}.py").is_file():
        found |= _checks(room)
    return found


def _checks(name: str) -> dict[str, Check]:
    module = importlib.import_module(f"{__name__}.{name}")
    return {key.removeprefix("check_"): value for key, value in vars(module).items() if key.startswith("check_")}


def check(room: str, kind: str, name: str) -> Result:
    """One check on one part, with the default settings and every variant."""
    function = checks_for(room)[name]
    skipped = ""
    try:
        cls = part.find(room, kind)
        if cls.room != room:
            raise Failed(f"is a part of room {cls.room!r}")
        settings = ({}, *cls.variants)
    except (SevenfoldError, ImportError, Failed) as error:
        return Result(name, False, _line(error))
    for setting in settings:
        result = _run(name, partial(_with, function, cls.Config, setting))
        if not result.ok:
            return result._replace(message=f"{result.message} (with {setting})" if setting else result.message)
        skipped = skipped or result.skipped_why
    return Result(name, True, skipped_why=skipped)


def run(room: str, kind: str) -> list[Result]:
    """Every check of a room on one part."""
    return [check(room, kind, name) for name in checks_for(room)]


def run_on_run(run: str | Path) -> list[Result]:
    """Every check on a run folder."""
    return [_run(name, partial(check, Path(run))) for name, check in _checks("run_folder").items()]


def _with(function: Check, config: Any, setting: dict[str, Any]) -> None:
    function(part.decode(config, setting))


def _run(name: str, function: Callable[[], None]) -> Result:
    """A check under a fixed seed; whatever it raises is a failure."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            function()
        except Skipped as why:
            return Result(name, True, skipped_why=str(why))
        except Exception as error:
            return Result(name, False, _line(error))
    return Result(name, True)


def _line(error: BaseException) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return first if isinstance(error, Failed) else f"{type(error).__name__}: {first}"
