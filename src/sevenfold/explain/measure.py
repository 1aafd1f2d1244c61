"""The five properties of a tokenizer as figures, on items that it did not learn from.

    lossless    share of items with decode(encode(x)) = x (numbers: with an error of at most 1e-6, the rounding of
                float32);  mean error(x, decode(encode(x))) of the modality
    stable      mean over items and edits of  1 - LCS(a, b) / max(|a|, |b|),  a and b the ids before and after one edit;
                order aside:                  1 - |a n b| / max(|a|, |b|),    a and b as multisets
    efficient   tokens / bytes;  bits = tokens log2(size) / bytes, against those of gzip -9 on the same bytes;
                entropy bits = - sum p(id) log2 p(id) tokens / bytes
    universal   1 - unknown tokens / tokens;  items that encode / items
    learnable   boundaries T of tokens and U of units, within the item:  P = |T n U| / |T|,  R = |T n U| / |U|,
                F1 = 2 P R / (P + R);  places in one gap between two units (spaces) count as one place

Vectors have no ids: two of them are the same token where |a - b| <= 0.001 |a|, and efficiency counts their numbers.
Where coordinates tell what a token is (Tokenizer.coords_tell), they are part of it: whole ones make ids of pairs, as many
as there are ids times coordinates; real ones are numbers beside the id, near or not as vectors are.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.core.align import changed
from sevenfold.core.part import encode
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens
from sevenfold.modality import Modality

EXCERPTS = 200
"""Excerpts of held-out items for errors and boundaries."""
EDITED = 64
"""Excerpts that are edited."""
ROUNDING = 1e-6
"""The error up to which numbers came back."""
NEAR = 1e-3
"""How far two vectors may be apart, as a share of the length of the first, to count as the same token."""
LISTED = 12
"""Unknown symbols and reasons that are listed."""


class Data(NamedTuple):
    """Checked raw items: to learn from, to measure on, and to take there and back."""

    learn: list[Any]
    held_out: list[Any]
    every: list[Any]


class Stability(NamedTuple):
    """Of one kind of edit: the mean share of tokens that change, the same with order aside, and how many change."""

    share: float
    order_aside: float
    tokens: float


class Measures(NamedTuple):
    """The figures of one tokenizer. None: not defined for it (vectors have no ids, pictures no boundaries)."""

    name: str
    kind: str
    settings: dict[str, Any]
    size: int | None
    features: int | None
    coordinates: int
    fit_seconds: float
    lossless: float
    error: float | None
    stable: dict[str, Stability]
    tokens_per_byte: float | None
    tokens_per_item: float | None
    bits_per_byte: float | None
    entropy_bits_per_byte: float | None
    numbers_per_byte: float | None
    ids_used: float | None
    known: float | None
    encoded: float
    unknown: list[tuple[str, int]]
    refused: list[tuple[str, int]]
    precision: float | None
    recall: float | None
    f1: float | None
    megabytes_per_second: float | None


def measure(name: str, modality: Modality, data: Data, fit_seconds: float, seed: int) -> Measures:
    """All figures of one fitted tokenizer."""
    tokenizer, most = modality.tokenizer, -(-EXCERPTS // len(data.held_out))
    excerpts = [raw for whole in data.held_out for raw in modality.excerpts(whole, most)]
    chosen = numpy_generator("excerpts", seed).permutation(len(excerpts))[:EXCERPTS]
    excerpts = [excerpts[place] for place in sorted(chosen.tolist())]
    exact, tried = 0, 0
    for raw in data.every:
        tried += 1
        exact += _returns(modality, raw)
    errors = [error for raw in excerpts if (error := _error(modality, raw)) is not None]
    pr = boundaries(modality, excerpts)
    return Measures(
        name=name, kind=str(tokenizer.kind), settings=encode(modality.config.tokenizer), size=tokenizer.size,
        features=tokenizer.features, coordinates=tokenizer.axes if tokenizer.coords_tell else 0, fit_seconds=fit_seconds, lossless=exact / tried,
        error=float(np.mean(errors)) if errors else None, stable=stability(modality, excerpts, seed),
        **_counted(modality, data.held_out), precision=pr[0], recall=pr[1], f1=pr[2],
    )  # fmt: skip


# Lossless
def encodes(modality: Modality, raw: Any) -> bool:
    """Whether the tokenizer takes the item."""
    try:
        modality.tokenizer.encode(raw)
    except ValueError:
        return False
    return True


def _returns(modality: Modality, raw: Any) -> bool:
    try:
        tokens = modality.tokenizer.encode(raw)
    except ValueError:
        return False
    back = modality.tokenizer.decode(tokens.values, tokens.coords)
    return back == raw if isinstance(raw, str) else modality.error(raw, back) <= ROUNDING


def _error(modality: Modality, raw: Any) -> float | None:
    try:
        tokens = modality.tokenizer.encode(raw)
    except ValueError:
        return None
    return modality.error(raw, modality.tokenizer.decode(tokens.values, tokens.coords))


# Stable
def stability(modality: Modality, excerpts: list[Any], seed: int) -> dict[str, Stability]:
    """How much changes under each kind of edit, over at most EDITED of the excerpts."""
    found: dict[str, list[Stability]] = {}
    for index, raw in enumerate(excerpts[:: max(1, len(excerpts) // EDITED)][:EDITED]):
        try:
            before = modality.tokenizer.encode(raw)
            edits = modality.edits(raw, numpy_generator("edits", seed, index))
        except ValueError:
            continue
        for name, edited in edits.items():
            try:
                after = modality.tokenizer.encode(modality.check(edited))
            except ValueError:
                continue
            found.setdefault(name, []).append(difference(*_alike(modality.tokenizer, before, after)))
    return {name: Stability(*np.mean(list(each), axis=0).tolist()) for name, each in found.items()}


def difference(before: np.ndarray, after: np.ndarray) -> Stability:
    """Between the tokens of an item and of an edited one."""
    if before.ndim == 2:
        before, after = _numbered(before, after)
    a, b = before.tolist(), after.tolist()
    longest = max(len(a), len(b), 1)
    share = changed(a, b)
    aside = 1 - (Counter(a) & Counter(b)).total() / longest if a or b else 0.0
    return Stability(share, aside, share * longest)


def _alike(tokenizer: Tokenizer, before: Tokens, after: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """Ids or vectors that are the same exactly where the tokens are: coordinates are part of them where they tell."""
    if not tokenizer.coords_tell:
        return before.values, after.values
    if before.values.ndim == 2:
        return _joined(before), _joined(after)
    known: dict[int, list[tuple[list[float], int]]] = {}
    numbers, count = [], 0
    ids, places = (np.concatenate(pair).tolist() for pair in zip(before[:2], after[:2]))
    for id, place in zip(ids, places):
        same = known.setdefault(id, [])
        near = NEAR * math.hypot(*place) if before.coords.dtype.kind == "f" else 0.0
        number = next((number for other, number in same if math.dist(place, other) <= near), count)
        if number == count:
            same.append((place, number))
            count += 1
        numbers.append(number)
    return np.array(numbers[: len(before.values)], np.int64), np.array(numbers[len(before.values) :], np.int64)


def _joined(tokens: Tokens) -> np.ndarray:
    return np.concatenate([tokens.values, tokens.coords.astype(tokens.values.dtype)], axis=1)


def _numbered(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors as numbers, the same number where they are the same token."""
    every = np.concatenate([before, after]).astype(np.float64)
    reach, known = NEAR * np.linalg.norm(every, axis=1), np.empty_like(every)
    within, numbers = np.empty(len(every)), []
    count = 0
    for vector, far in zip(every, reach.tolist()):
        away = np.linalg.norm(known[:count] - vector, axis=1)
        near = np.flatnonzero(away <= within[:count])
        if len(near):
            numbers.append(int(near[away[near].argmin()]))
            continue
        known[count], within[count] = vector, far
        numbers.append(count)
        count += 1
    return np.array(numbers[: len(before)], np.int64), np.array(numbers[len(before) :], np.int64)


# Efficient, universal
def _counted(modality: Modality, raws: list[Any]) -> dict[str, Any]:
    tokenizer, seconds, content, tokens, items = modality.tokenizer, 0.0, 0, 0, 0
    tells, reach = tokenizer.coords_tell, tokenizer.reach()
    real = tells and reach is None
    uses: Counter[tuple[int, ...]] = Counter()
    used: set[int] = set()
    unknown: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    missing, absent = 0, tokenizer.specials.get("unk")
    for raw in raws:
        began = time.perf_counter()
        try:
            encoded = tokenizer.encode(raw)
        except ValueError as error:
            refused[reason(str(error))] += 1
            continue
        seconds += time.perf_counter() - began
        values = encoded.values
        content, tokens, items = content + len(modality.content(raw)), tokens + len(values), items + 1
        if values.ndim == 1:
            used.update(values.tolist())
            if not real:
                pairs = np.concatenate([values[:, None], encoded.coords], axis=1) if tells else values[:, None]
                found, times = np.unique(pairs, axis=0, return_counts=True)
                uses.update(dict(zip(map(tuple, found.tolist()), times.tolist())))
        if absent is not None and values.ndim == 1 and (values == absent).any():
            missing += int((values == absent).sum())
            spans = tokenizer.spans(raw)
            if spans is not None:
                unknown.update(str(raw[begin:end])[:40] for begin, end in spans[values == absent].tolist())
    size, of = tokenizer.size if items else None, max(content, 1)
    ids = None if size is None or real else size * (reach or 1) ** (tokenizer.axes if tells else 0)
    numbers = (tokenizer.features or 0) + (tokenizer.axes if real else 0)
    shares = np.array(list(uses.values())) / max(tokens, 1)
    entropy = float(-(shares * np.log2(shares)).sum()) if uses else None
    return {
        "tokens_per_byte": tokens / of if items else None,
        "tokens_per_item": tokens / items if items else None,
        "bits_per_byte": None if ids is None else tokens * math.log2(max(ids, 2)) / of,
        "entropy_bits_per_byte": None if ids is None or entropy is None else tokens * entropy / of,
        "numbers_per_byte": tokens * numbers / of if numbers and items else None,
        "ids_used": None if size is None else len(used) / size,
        "known": None if size is None or not tokens else 1 - missing / tokens,
        "encoded": items / len(raws),
        "unknown": unknown.most_common(LISTED),
        "refused": refused.most_common(LISTED),
        "megabytes_per_second": content / 1e6 / max(seconds, 1e-9) if items else None,
    }


def reason(why: str) -> str:
    """An error's first line, without the place in the item, so that equal reasons can be counted."""
    return re.sub(r"(?<=position )\d+", "…", why.partition("\n")[0])


# Learnable
def boundaries(modality: Modality, raws: list[Any]) -> tuple[float | None, float | None, float | None]:
    """(precision, recall, F1) of the places where tokens meet, against those where units meet; None: not known."""
    both = ours = theirs = 0
    for raw in raws:
        units = modality.units(raw)
        try:
            spans = modality.tokenizer.spans(raw)
        except ValueError:
            continue
        if units is None or spans is None:
            return None, None, None
        if len(units) < 2:
            continue
        last = max(int(spans[-1, 1]) if len(spans) else 0, int(units[-1, 1]))
        place = np.zeros(last + 1, np.int64)
        for begin, end in units.tolist():
            place[begin + 1 : end + 1] = 1
        place = np.cumsum(place)  # equal within a gap
        inner = set(range(1, int(place[-1])))
        of_tokens = set(place[spans.ravel()].tolist()) & inner
        of_units = set(place[units.ravel()].tolist()) & inner
        both, ours, theirs = both + len(of_tokens & of_units), ours + len(of_tokens), theirs + len(of_units)
    if not theirs:
        return None, None, None
    precision, recall = both / max(ours, 1), both / theirs
    return precision, recall, 2 * both / max(ours + theirs, 1)
