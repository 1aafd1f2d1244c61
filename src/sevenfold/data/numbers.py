"""Numbers of samples in 8 bytes each, or none: a range, or an array that compares and slices as a list does."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np


def as_array(numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """[n] int64."""
    if isinstance(numbers, range):
        return np.arange(numbers.start, numbers.stop, numbers.step, dtype=np.int64)
    return np.asarray(numbers, np.int64)


def packed(numbers: Sequence[int] | np.ndarray) -> Sequence[int]:
    """The same numbers: a range where each is one more than the one before."""
    if isinstance(numbers, range):
        return numbers
    found = np.ascontiguousarray(as_array(numbers))
    if len(found) and bool((np.diff(found) == 1).all()):
        return range(int(found[0]), int(found[-1]) + 1)
    made = array("q")
    made.frombytes(found.tobytes())
    return made


def moved(numbers: Sequence[int], by: int) -> Sequence[int]:
    """Each of them, plus a number."""
    if isinstance(numbers, range):
        return range(numbers.start + by, numbers.stop + by, numbers.step)
    return packed(as_array(numbers) + by)


def joined(parts: Sequence[Sequence[int]]) -> Sequence[int]:
    """Those of each part, one after the other."""
    return packed(np.concatenate([as_array(part) for part in parts])) if parts else range(0)


def within(numbers: Sequence[int], span: range) -> Sequence[int]:
    """Those that are in a span, in order."""
    if isinstance(numbers, range) and numbers.step == 1:
        return range(max(numbers.start, span.start), min(numbers.stop, span.stop))
    found = as_array(numbers)
    return packed(found[(found >= span.start) & (found < span.stop)])
