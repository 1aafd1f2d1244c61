"""Faults: what happens to trainings and files in the world, tried many times. One file is one fault.

    sevenfold check --faults                     all of them, with a table
    sevenfold check --faults --only damaged      one

A fault's file has a docstring (what is tried), TRIES (how often) and `tried(folder, tries)`, which gives an Outcome for each
row of the table. The tests run the same functions with fewer tries.
"""

from __future__ import annotations

import importlib
import io
import pkgutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

from sevenfold.core.errors import ConfigError, did_you_mean


class Outcome(NamedTuple):
    """One row: what was tried how often, in how many cases the target was missed, and what else there is to say (the first
    miss, the slowest case, a peer's figure). `gates` is False for a peer's row, which has no target."""

    what: str
    tried: int
    missed: int
    target: str
    told: str = ""
    gates: bool = True
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the target was met, and something was tried."""
        return not self.gates or (self.missed == 0 and self.tried > 0)


def names() -> list[str]:
    """The faults there are."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))


def outcomes(name: str, tries: int | None = None) -> Iterator[Outcome]:
    """The rows of one fault, as they come; `tries` is per row, by default what the fault itself says."""
    if name not in names():
        raise ConfigError(f"there is no fault {name!r}{did_you_mean(name, names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        found = module.tried(Path(folder), module.TRIES if tries is None else tries)
        while True:
            began = time.perf_counter()
            with redirect_stdout(io.StringIO()):  # what the trainings say
                outcome = next(found, None)
            if outcome is None:
                return
            yield outcome._replace(seconds=time.perf_counter() - began)
