"""How much two sequences have in common: the length of their longest common subsequence, exactly.

    LCS(a, b) = the most pairs (i, j), rising in both, with a_i = b_j;    changed = 1 - LCS(a, b) / max(|a|, |b|)

Bit-parallel, one addition of long integers for each element of b: Hyyro 2004, "Bit-parallel LCS-length computation
revisited", with the alphabet of a as bit masks.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def common(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """The length of the longest common subsequence of a and b."""
    places: dict[Hashable, int] = {}
    for place, element in enumerate(a):
        places[element] = places.get(element, 0) | 1 << place
    every = (1 << len(a)) - 1
    row = every
    for element in b:
        met = row & places.get(element, 0)
        row = ((row + met) | (row - met)) & every
    return len(a) - row.bit_count()


def changed(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
    """The share of the longer one that has no partner in the other, 0 (equal) … 1 (nothing in common)."""
    if not a and not b:
        return 0.0
    return 1 - common(a, b) / max(len(a), len(b))
