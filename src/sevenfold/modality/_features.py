"""Raw features of items, as a simple method reads them: what `evaluate` fits the baselines on, beside every model.

k-mer counts (Leslie 2002, doi:10.1142/9789812799623_0053), one letter by place, words weighted by tf-idf (Salton 1988,
doi:10.1016/0306-4573(88)90021-0), pixels, log-normalised expression, and plain statistics of series and clouds. Which columns there
are is learned from training items alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

COLUMNS = 4096
"""The most columns of one kind of features: of more, those that vary the most."""


class Features(NamedTuple):
    """One kind of raw features.

    name     what they are, as in "logistic regression on pixels"
    of       raw items → float32 [n d]
    scaling  each: a column is brought to a standard deviation of 1 before L2 is meant; one: all by one number
    """

    name: str
    of: Callable[[Sequence[Any]], np.ndarray]
    scaling: Literal["each", "one"] = "each"


class Shingles(NamedTuple):
    """The pieces of an item, by which near duplicates are found.

    hashes     uint64 [k], each once
    contained  two items are alike if the shorter lies in the longer (crops of a sequence); otherwise if they share most of what
               either has
    """

    hashes: np.ndarray
    contained: bool


def mixed(values: np.ndarray) -> np.ndarray:
    """uint64 → uint64, spread over all bits (splitmix64, Steele 2014, doi:10.1145/2714064.2660195)."""
    with np.errstate(over="ignore"):
        x = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def shingles(text: str, k: int) -> np.ndarray:
    """Hashes of all runs of k characters, each once; of a shorter str, that of the whole."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    return np.unique(_rolled(codes, min(k, len(codes))))


def _rolled(codes: np.ndarray, k: int) -> np.ndarray:
    """A hash of each window of k codes."""
    if not k:
        return np.zeros(0, np.uint64)
    windows, found = len(codes) - k + 1, np.zeros(len(codes) - k + 1, np.uint64)
    with np.errstate(over="ignore"):
        for shift in range(k):
            found = mixed(found) ^ mixed(codes[shift : shift + windows] + np.uint64(shift << 32))
    return mixed(found)


def both_strands(bases: str, other: str, k: int) -> np.ndarray:
    """Hashes of all k-mers of a strand, each that of the lesser of itself and its complement read backwards; windows with a
    letter that is no base are left out. `other`: the complementary strand in its own direction."""
    k = min(k, len(bases))
    one, two = (
        np.frombuffer(strand.encode("latin-1", "replace"), np.uint8).astype(np.uint64) for strand in (bases, other)
    )
    known = np.isin(one, np.frombuffer(b"ACGT", np.uint8))
    whole = np.convolve(known, np.ones(k, int), "valid") == k if k else np.zeros(0, bool)
    return np.unique(np.minimum(_rolled(one, k), _rolled(two, k)[::-1])[whole])


def varying(x: np.ndarray, most: int = COLUMNS) -> np.ndarray:
    """Which columns vary at all, the `most` that vary the most."""
    spread = x.std(0)
    order = np.argsort(-spread, kind="stable")[:most]
    return np.sort(order[spread[order] > 0])


def chosen(name: str, of: Callable[[Sequence[Any]], np.ndarray], train: Sequence[Any], scaling: Any) -> Features:
    """Features with the columns that vary in training items."""
    kept = varying(of(train)) if len(train) else np.zeros(0, int)
    return Features(name, lambda raws: of(raws)[:, kept], scaling)


def kmers(train: Sequence[str], alphabet: str, most: int, unit: str) -> tuple[Features, ...]:
    """Shares of all words of 1 … `most` letters; and, where all training items have one length, each place's letter."""
    size = len(alphabet)
    number = np.full(256, -1, np.int64)
    number[np.frombuffer(alphabet.encode(), np.uint8)] = np.arange(size)

    def counts(raws: Sequence[str]) -> np.ndarray:
        found = []
        for raw in raws:
            codes = number[np.frombuffer(raw.encode("latin-1", "replace"), np.uint8)]
            shares = []
            for k in range(1, most + 1):
                windows = sliding_window_view(codes, k) if len(codes) >= k else np.zeros((0, k), np.int64)
                whole = windows[(windows >= 0).all(1)] @ (size ** np.arange(k))
                shares.append(np.bincount(whole, minlength=size**k) / max(len(windows), 1))
            found.append(np.concatenate(shares).astype(np.float32))
        return np.stack(found) if found else np.zeros((0, sum(size**k for k in range(1, most + 1))), np.float32)

    told = [Features(f"counts of 1- to {most}-mers", counts)]
    lengths = {len(raw) for raw in train}
    if len(lengths) == 1 and (length := lengths.pop()) * len(alphabet) <= 4 * COLUMNS:
        told.append(chosen(f"the {unit} at each place", lambda raws: one_hot(raws, alphabet, length), train, "one"))
    return tuple(told)


def one_hot(raws: Sequence[str], alphabet: str, length: int) -> np.ndarray:
    """[n length*letters]: which letter stands where; a letter that is none, or a place that is not there, is all 0."""
    found = np.zeros((len(raws), length, len(alphabet)), np.float32)
    letters = np.frombuffer(alphabet.encode(), np.uint8)
    for row, raw in enumerate(raws):
        codes = np.frombuffer(raw[:length].encode("latin-1", "replace"), np.uint8)
        found[row, : len(codes)] = codes[:, None] == letters
    return found.reshape(len(raws), -1)


def words(
    train: Sequence[str], split: Callable[[str], list[str]], name: str, most: int, grams: tuple[int, int]
) -> Features:
    """tf-idf of the pieces that occur in the most training items (in two at least, where there are such)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    settings: dict[str, Any] = {"tokenizer": split, "token_pattern": None, "lowercase": False, "sublinear_tf": True}
    often = Counter(piece for raw in train for piece in set(split(raw)))
    least = 2 if any(count > 1 for count in often.values()) else 1
    if not often:
        return Features(name, lambda raws: np.zeros((len(raws), 1), np.float32), "one")
    counted = TfidfVectorizer(**settings, ngram_range=grams, max_features=most, min_df=least).fit(train)
    return Features(name, lambda raws: counted.transform(raws).toarray().astype(np.float32), "one")


def statistics(values: np.ndarray) -> np.ndarray:
    """[T] → mean, deviation, least, quartiles, most; zeros where nothing is known."""
    known = values[np.isfinite(values)]
    if not known.size:
        return np.zeros(7)
    return np.array([known.mean(), known.std(), *np.quantile(known, [0, 0.25, 0.5, 0.75, 1])])


def over_time(column: np.ndarray) -> np.ndarray:
    """[T] → statistics, slope, autocorrelation at 1, 2, 4, 8 steps, and the share of power in 12 bands of frequency."""
    known = np.isfinite(column)
    filled = np.where(known, column, column[known].mean() if known.any() else 0.0)
    flat = filled - filled.mean()
    time = np.linspace(-1, 1, len(flat)) if len(flat) > 1 else np.zeros(len(flat))
    power = (flat @ flat) or 1.0
    echo = [flat[lag:] @ flat[:-lag] / power if lag < len(flat) else 0.0 for lag in (1, 2, 4, 8)]
    spectrum = np.abs(np.fft.rfft(flat)) ** 2
    bands = [band.sum() for band in np.array_split(spectrum / (spectrum.sum() or 1.0), 12)]
    return np.array([*statistics(column), 2 * (time @ flat) / ((time @ time) or 1.0), *echo, *bands])


def series_features(train: Sequence[np.ndarray]) -> tuple[Features, ...]:
    """Statistics of each channel; and, where all training items have one shape, the values as they are. Items: [T] or [T C]."""
    shapes = {raw.reshape(len(raw), -1).shape for raw in train}
    channels = max((shape[1] for shape in shapes), default=1)

    def told(raws: Sequence[np.ndarray]) -> np.ndarray:
        found = np.zeros((len(raws), channels, 24))
        for row, raw in enumerate(raws):
            for place, column in enumerate(raw.reshape(len(raw), -1).T[:channels]):
                found[row, place] = over_time(np.asarray(column, np.float64))
        return np.nan_to_num(found).reshape(len(raws), -1).astype(np.float32)

    def plain(raws: Sequence[np.ndarray]) -> np.ndarray:
        found = np.zeros((len(raws), *shape), np.float32)
        for row, raw in enumerate(raws):
            part = np.nan_to_num(raw.reshape(len(raw), -1)[: shape[0], : shape[1]])
            found[row, : part.shape[0], : part.shape[1]] = part
        return found.reshape(len(raws), -1)

    made = [Features("statistics of the series", told)]
    shape = next(iter(shapes), (1, 1))
    if len(shapes) == 1:
        made.append(chosen("values by time", plain, train, "each"))
    return tuple(made)


def picture_features(train: Sequence[np.ndarray], side: int = 32) -> tuple[Features, ...]:
    """Pixels in 0…1; pictures of other sizes than most, or beyond `side`, are brought to one by the mean over areas. Items [H W C]."""
    shapes = [raw.shape for raw in train]
    common = max(set(shapes), key=shapes.count) if shapes else (1, 1, 1)
    height, width, channels = min(common[0], side), min(common[1], side), common[2]

    def pixels(raws: Sequence[np.ndarray]) -> np.ndarray:
        found = np.zeros((len(raws), height, width, channels), np.float32)
        for row, raw in enumerate(raws):
            small = areas(areas(raw.astype(np.float32) / (255 if raw.dtype == np.uint8 else 1), height, 0), width, 1)
            share = min(channels, small.shape[2])
            found[row, :, :, :share] = small[:, :, :share]
        return found.reshape(len(raws), -1)

    small = "" if (height, width) == common[:2] else f" at {height} x {width}"
    return (Features(f"pixels{small}", pixels, "one"),)


def areas(values: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Brought to `size` along an axis by the mean over equal stretches (repeated where there are fewer)."""
    count = values.shape[axis]
    if count == size:
        return values
    begins = np.arange(size) * count // size
    ends = np.maximum(begins + 1, (np.arange(size) + 1) * count // size)
    total = np.concatenate([np.zeros_like(values.take([0], axis)), values.cumsum(axis, dtype=np.float64)], axis)
    shape = [1] * values.ndim
    shape[axis] = size
    return (total.take(ends, axis) - total.take(begins, axis)) / (ends - begins).reshape(shape)


def token_counts(modality: Any, train: Sequence[Any]) -> Features:
    """How often each id of a modality's tokenizer occurs in an item, as a share; of vectors, their mean and deviation."""
    size = modality.tokenizer.size

    def told(raws: Sequence[Any]) -> np.ndarray:
        found = []
        for raw in raws:
            values = modality.tokens(raw, cut=False).values
            if size is not None:
                found.append(np.bincount(values, minlength=size) / max(len(values), 1))
            else:
                found.append(np.concatenate([values.mean(0), values.std(0)]))
        return np.stack(found).astype(np.float32) if found else np.zeros((0, 1), np.float32)

    return chosen("counts of tokens" if size is not None else "means of tokens", told, train, "each")
