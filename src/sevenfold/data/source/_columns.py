"""What the columns of a table hold, told from the first rows: text, labels, numbers, DNA, protein or arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sevenfold.core.errors import DataError, did_you_mean

FIRST = 1000
"""Rows that are looked at."""
DNA = frozenset("ACGTNRYSWKMBDHVU")
PROTEIN = frozenset("ACDEFGHIKLMNPQRSTVWYXBZUOJ*.-")
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
LABELS = frozenset({"label", "labels", "class", "category", "target", "split", "species", "group"})
"""Columns with these names hold labels if their values are short, however few rows there are."""
KINDS = ("text", "label", "number", "dna", "protein", "array")


def is_missing(value: Any) -> bool:
    """Whether a cell says that there is no value."""
    return value is None or (isinstance(value, str) and value.strip().lower() in MISSING)


def kind_of(name: str, values: Sequence[Any]) -> str | None:
    """The kind of field that these values of a column are; None if it is nothing that is read (objects, say)."""
    known = [value for value in values if not is_missing(value)]
    if not known:
        return None
    if all(isinstance(value, bool) for value in known):
        return "label"
    if all(isinstance(value, list) for value in known):
        return "text" if all(isinstance(item, str) for value in known for item in value) else _array_kind(known)
    if not all(isinstance(value, str | int | float) for value in known):
        return None
    words = [str(value).strip() for value in known]
    short = max(map(len, words)) <= 64
    distinct = len(set(words))
    if all(map(_is_number, words)):
        whole = all(word.lstrip("+-").isdigit() for word in words)
        return "label" if whole and name.lower() in LABELS and distinct <= 1000 else "number"
    letters = sequence_kind(words)
    if letters is not None:
        return letters
    few = distinct <= 200 and 2 * distinct <= len(words)
    return "label" if short and (few or name.lower() in LABELS) else "text"


def _array_kind(values: list[Any]) -> str | None:
    try:
        for value in values:
            to_array(value)
    except ValueError:
        return None
    return "array"


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word)) and "_" not in word
    except ValueError:
        return False


def sequence_kind(words: Iterable[str]) -> str | None:
    """`dna` or `protein` if all these words are one, of 16 letters and more on average; None otherwise."""
    letters = dict.fromkeys(DNA | PROTEIN, 0)
    count = total = 0
    for word in words:
        if not (word.isupper() or word.islower()) or len(word) < 4:
            return None
        for letter in set(word):
            if letter.upper() not in letters:
                return None
            letters[letter.upper()] += word.count(letter)
        count, total = count + 1, total + len(word)
        if word.islower() and not DNA.issuperset(word.upper()):
            return None
    if not count or total < 16 * count:
        return None
    outside = sum(number for letter, number in letters.items() if letter not in DNA)
    bases = sum(letters[letter] for letter in "ACGTUN")
    return "dna" if not outside and bases > 0.9 * total else "protein"


def to_array(value: Any) -> np.ndarray:
    """Nested lists of numbers as an array, int64 or float32; ValueError if it is anything else."""
    try:
        array = np.array(value)
    except ValueError:
        raise ValueError("holds lists of different lengths") from None
    if array.dtype.kind not in "iuf" or array.size == 0:
        raise ValueError("is not a list of numbers")
    return array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)


def convert(value: Any, kind: str) -> Any:
    """A cell as the raw item of its kind; ValueError, to follow the column's name, if it is not one."""
    if kind == "text":
        return _well_formed("\n".join(map(str, value)) if isinstance(value, list) else str(value))
    if is_missing(value) and kind != "label":
        raise ValueError("is missing")
    if kind == "label":
        return _well_formed(str(value).strip())
    if kind == "number":
        word = str(value).strip()
        if not _is_number(word):
            raise ValueError(f"is {word[:40]!r}, not a number")
        return float(word)
    if kind == "array":
        return to_array(value)
    return sequence(str(value).strip(), kind)


def _well_formed(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half a character (a lone surrogate) at offset {error.start}") from None
    return text


def sequence(word: str, kind: str) -> str:
    """DNA or protein in upper case, U of RNA as T; ValueError for a letter that is neither, with its offset."""
    word = word.upper()
    wrong = set(word) - (DNA if kind == "dna" else PROTEIN)
    if wrong:
        place = min(word.index(letter) for letter in wrong)
        raise ValueError(f"has {word[place]!r} at offset {place}, which is no letter of {kind.replace('dna', 'DNA')}")
    return word.replace("U", "T") if kind == "dna" else word


def choose(
    where: str, rows: Sequence[dict[str, Any]], wanted: Sequence[str] | None, given: dict[str, str] | None, share: float
) -> tuple[dict[str, str], list[str]]:
    """Fields → kinds for the columns of the first rows, and notes on those left out.

    `wanted` columns (by default all) are read; `given` kinds win over what the values look like. A column that nobody
    asked for is left out if more than `share` of its values are missing. DataError names a column that is not there.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    asked = [*(wanted or []), *(given or {})]
    for name in asked:
        if name not in names:
            raise DataError(f"{where}: there is no column {name!r}{did_you_mean(name, names)}")
    for name, kind in (given or {}).items():
        if kind not in KINDS:
            raise DataError(f"{where}: the column {name!r} cannot be read as {kind!r}{did_you_mean(kind, KINDS)}")
    fields: dict[str, str] = {}
    notes: list[str] = []
    for name in names if wanted is None else wanted:
        values = [row.get(name) for row in rows]
        found = (given or {}).get(name) or kind_of(name, values)
        lost = sum(value is None if found in ("text", "label") else is_missing(value) for value in values)
        if found is None and name in asked:
            raise DataError(f"{where}: the column {name!r} holds nothing that can be read as {', '.join(KINDS)}")
        if found is None:
            notes.append(f"{where}: the column {name!r} is left out: it is empty or holds objects")
        elif name not in asked and lost > share * len(values):
            notes.append(f"{where}: the column {name!r} is left out: {lost} of the first {len(values)} rows lack it")
        else:
            fields[name] = found
    if not fields:
        raise DataError(f"{where}: no column can be read; there are {', '.join(map(repr, names)) or 'none'}")
    return fields, notes
