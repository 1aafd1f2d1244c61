"""What the columns of a table hold, told from the first rows: text, labels, numbers, DNA, protein or arrays."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from sevenfold.core.errors import BadSample, DataError, did_you_mean

FIRST = 1000
"""Rows that are looked at."""
DNA = frozenset("ACGTNRYSWKMBDHVU")
PROTEIN = frozenset("ACDEFGHIKLMNPQRSTVWYXBZUOJ*.-")
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
LABELS = frozenset({"label", "labels", "class", "category", "target", "split", "species", "group"})
"""Columns with these names hold labels if their values are short, however few rows there are."""
TEXTS = frozenset({"text", "caption", "sentence", "content", "title", "prompt", "question", "answer", "message"})
"""Columns with these names hold text, however often it repeats."""
MOLECULES = frozenset({"smiles", "canonical_smiles", "isomeric_smiles", "smi", "mol_smiles"})
"""Columns with these names hold molecules."""
KINDS = ("text", "label", "number", "dna", "protein", "molecule", "array")


def is_missing(value: Any) -> bool:
    """Whether a cell says that there is no value."""
    return value is None or (isinstance(value, str) and value.strip().lower() in MISSING)


def kind_of(name: str, values: Sequence[Any]) -> str | None:
    """The kind of field that these values of a column are; None if it is nothing that is read (objects, say).

    One value in a hundred may be of another kind: it is a bad sample later.
    """
    known = [value for value in values if not is_missing(value)]
    forms = Counter(map(_form, known))
    form, count = forms.most_common(1)[0] if known else ("", 0)
    if not known or not _nearly_all(count, len(known)):
        return None
    known = [value for value in known if _form(value) == form]
    if form == "list":
        return _kind_of_lists(known)
    return {"bool": "label", "scalar": _kind_of_words(name, [str(value).strip() for value in known])}.get(form)


def _form(value: Any) -> str:
    if isinstance(value, bool | list):
        return type(value).__name__
    return "scalar" if isinstance(value, str | int | float) else "other"


def _nearly_all(count: int, total: int) -> bool:
    return count >= 0.99 * total


def _kind_of_lists(values: list[list]) -> str | None:
    words = sum(all(isinstance(item, str) for item in value) for value in values)
    if _nearly_all(words, len(values)):
        return "text"
    return "array" if _nearly_all(sum(map(_is_array, values)), len(values)) else None


def _is_array(value: list) -> bool:
    try:
        to_array(value)
        return True
    except ValueError:
        return False


def _kind_of_words(name: str, words: list[str]) -> str:
    short = _nearly_all(sum(len(word) <= 64 for word in words), len(words))
    distinct = len(set(words))
    if _nearly_all(sum(map(_is_number, words)), len(words)):
        whole = all(word.lstrip("+-").isdigit() for word in words)
        return "label" if whole and name.lower() in LABELS and distinct <= 1000 else "number"
    if name.lower().replace(" ", "_") in MOLECULES:
        return "molecule"
    letters = sequence_kind(words)
    if letters is not None:
        return letters
    few = distinct <= 200 and 2 * distinct <= len(words) and name.lower() not in TEXTS
    return "label" if short and (few or name.lower() in LABELS) else "text"


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word)) and "_" not in word
    except ValueError:
        return False


def sequence_kind(words: Sequence[str]) -> str | None:
    """`dna` or `protein` if these words are that, of 16 letters and more on average; None otherwise."""
    spelled = [word.upper() for word in words if PROTEIN.issuperset(word) or DNA.issuperset(word.upper())]
    letters = Counter("".join(spelled))
    total = letters.total()
    if not total or total < 16 * len(spelled) or not _nearly_all(len(spelled), len(words)):
        return None
    bases = sum(letters[letter] for letter in "ACGTUN")
    outside = sum(count for letter, count in letters.items() if letter not in DNA)
    return "dna" if bases > 0.9 * total and outside <= 0.01 * total else "protein"


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
    if kind == "molecule":
        return _well_formed(str(value).strip())
    return sequence(str(value).strip(), kind)


def cell(value: Any, kind: str, partly: bool) -> Any:
    """The same, None where there is no value, in a column that samples may lack (`partly`)."""
    if partly and is_missing(value):
        return None
    try:
        return convert(value, kind)
    except ValueError as error:
        hint = ": name the column in data.partly if some samples may lack it" if is_missing(value) else ""
        raise ValueError(f"{error}{hint}") from None


def keyed(row: Mapping[str, Any], kinds: Mapping[str, str], partly: Collection[str], where: str) -> dict[str, Any]:
    """The fields of a row of keys and values; BadSample for one that is not there or no such thing."""
    found = {}
    for name, kind in kinds.items():
        if row.get(name) is None and name not in partly:
            raise BadSample(where, f"has no {name!r}: name it in data.partly if some samples may lack it")
        try:
            found[name] = cell(row.get(name), kind, name in partly)
        except ValueError as error:
            raise BadSample(where, f"{name!r} {error}") from None
    return found


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
    where: str,
    rows: Sequence[dict[str, Any]],
    wanted: Sequence[str] | None,
    given: dict[str, str] | None,
    share: float,
    partly: Sequence[str] = (),
) -> tuple[dict[str, str], list[str]]:
    """Fields → kinds for the columns of the first rows, and notes on those left out.

    `wanted` columns (by default all) are read; `given` kinds win over what the values look like. A column that nobody
    asked for is left out if more than `share` of its values are missing. DataError names a column that is not there.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    asked = [*(wanted or []), *(given or {})]
    for name in (*asked, *partly):
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
        elif name not in (*asked, *partly) and lost > share * len(values):
            notes.append(f"{where}: the column {name!r} is left out: {lost} of the first {len(values)} rows lack it")
        else:
            fields[name] = found
    if not fields:
        raise DataError(f"{where}: no column can be read; there are {', '.join(map(repr, names)) or 'none'}")
    return fields, notes
