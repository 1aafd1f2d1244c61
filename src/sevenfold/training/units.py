"""Times and sizes as people write them: 90s, 30m, 2h, 1d; 500MB, 8GB (10^9), 8GiB (2^30)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sevenfold.core.errors import ConfigError

UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
SIZES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def seconds_of(budget: float | str, field: str = "budget") -> float:
    """Seconds from a number, or a text such as 90s, 30m, 2h, 1d. ConfigError for anything else, which names the field."""
    value = _measured(budget, UNITS, "s", f"{field}: a number of seconds, or 90s, 30m, 2h, 1d")
    if not 0 < value <= 366 * 86400:
        raise ConfigError(f"{field}: above 0 and at most a year, not {budget}")
    return value


def bytes_of(memory: float | str) -> int:
    """Bytes from a number, or a text such as 500MB, 8GB (10^9), 8GiB (2^30). ConfigError for anything else."""
    value = _measured(memory, SIZES, "b", "memory: a number of bytes, or 500MB, 8GB, 8GiB")
    if not 1 <= value <= 2**60:
        raise ConfigError(f"memory: at least a byte, not {memory}")
    return int(value)


def _measured(given: float | str, units: Mapping[str, int], unit: str, wanted: str) -> float:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s?([A-Za-z]*)", str(given).strip())
    if found is None or (found[2].lower() or unit) not in units:
        raise ConfigError(f"{wanted}, not {given!r}")
    return float(found[1]) * units[found[2].lower() or unit]
