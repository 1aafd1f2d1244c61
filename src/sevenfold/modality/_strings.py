"""What the modalities of letters (text, DNA, protein) share: facts about many strings, and showing one."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from sevenfold.core.align import changed

SHOWN = 2000
"""Characters of one item that are shown."""


def need_string(raw: Any, what: str) -> str:
    """The raw item if it is a str that is not empty; otherwise ValueError, one line."""
    if not isinstance(raw, str):
        raise ValueError(f"{what} is a str, not {type(raw).__name__}")
    if not raw:
        raise ValueError(f"{what} is empty")
    return raw


def facts(raws: Sequence[str], unit: str) -> dict[str, Any]:
    """How many there are, how long they are, and which letters they use most."""
    if not raws:
        return {"items": 0}
    counts = Counter(letter for raw in raws for letter in raw)
    total = sum(counts.values())
    top = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:8]
    return {
        "items": len(raws),
        f"{unit} in all": total,
        f"{unit}, least / median / most": spread([len(raw) for raw in raws]),
        "different letters": len(counts),
        "most frequent": ", ".join(f"{letter!r} {100 * count / total:.1f}%" for letter, count in top),
    }


def spread(numbers: Sequence[float]) -> str:
    """`least / median / most` of some numbers."""
    return f"{min(numbers):g} / {statistics.median(numbers):g} / {max(numbers):g}"


def mean_length(raws: Sequence[str]) -> float:
    """Letters of an item, on average."""
    return statistics.fmean(map(len, raws)) if raws else 0.0


def shown(raw: str) -> str:
    """A str as HTML, its line breaks kept, cut to 2,000 characters."""
    more = f" … ({len(raw) - SHOWN:,} more)" if len(raw) > SHOWN else ""
    return f'<code style="white-space:pre-wrap;overflow-wrap:anywhere">{escape(raw[:SHOWN])}{more}</code>'


def letter_edits(raw: str, draw: np.random.Generator, alphabet: str, unit: str) -> dict[str, str]:
    """One letter replaced by another one of the alphabet, one put in, one taken out, each at a place of its own."""
    replaced, inserted, deleted = draw.integers(len(raw), size=3).tolist()
    others = sorted(set(alphabet) - {raw[replaced]}) or ["x" if raw[replaced] != "x" else "y"]
    other, new = (letters[int(draw.integers(len(letters)))] for letters in (others, sorted(set(alphabet)) or others))
    edits = {
        f"one {unit} replaced": raw[:replaced] + other + raw[replaced + 1 :],
        f"one {unit} inserted": raw[:inserted] + new + raw[inserted:],
    }
    return edits | ({f"one {unit} deleted": raw[:deleted] + raw[deleted + 1 :]} if len(raw) > 1 else {})


def letters_lost(raw: str, back: str) -> float:
    """The share of letters that differ, by the longest common subsequence."""
    return 0.0 if raw == back else changed(raw, back)
