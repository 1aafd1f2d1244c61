"""What training items give away of test items: exact copies, and near ones.

    exact   SHA-256 of the canonical bytes
    near    J(A, B) = |A and B| / |A or B| >= 0.8                 texts: shingles; candidates by MinHash, confirmed by the true J
            C(A, B) = |A and B| / min(|A|, |B|) >= 0.5            DNA (either strand), protein: k-mers, so crops are found too
            |x - y| <= 0.1 of the distance of two items at random   arrays, by their raw features

Broder 1997, doi:10.1109/SEQUEN.1997.666900 (MinHash, containment); Irber 2022, doi:10.1101/2022.01.11.475838 (hashes below a
threshold stand for all: where there are more than can be held).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from sevenfold.core.seeds import numpy_generator
from sevenfold.modality import Modality
from sevenfold.modality._features import Features, mixed

JACCARD, CONTAINED, DISTANCE = 0.8, 0.5, 0.1
LISTED = 20
TRAIN = 50_000
"""The most training items that are looked at."""
HASHES = 8_000_000
"""The most hashes that are held at once: of more, every s-th is."""
POSTINGS = 64
"""Of a k-mer that more training items have, only the first ones are candidates by it."""
BANDS, ROWS = 32, 4
"""MinHash: 128 minima in 32 bands of 4. Two texts of J = 0.8 share a band with probability 1 - (1 - 0.8^4)^32 > 0.9999."""
PROJECTED = 128
LEARNED = 2_000
"""Items that raw features learn their columns from."""
NUMBERS = 100_000_000
"""The most raw features that are held at once: of more training items, the first ones are looked at for near ones."""


class Leak(NamedTuple):
    """A test item, the training item most like it, and how alike (1: a copy)."""

    test: int
    train: int
    alike: float
    exact: bool


class Leaks(NamedTuple):
    """What was found."""

    tested: int
    found: list[Leak]
    how: str
    names: list[tuple[str, str, float, str]]
    """(test item, training item, how alike, exact or near) of the first ones."""

    @property
    def exact(self) -> int:
        return len({leak.test for leak in self.found if leak.exact})

    def joined(self, other: Leaks) -> Leaks:
        """With what was found by another stream of the same items."""
        how = self.how if self.how == other.how else f"{self.how}; {other.how}"
        return Leaks(self.tested, [*self.found, *other.found], how, [*self.names, *other.names][:LISTED])

    @property
    def places(self) -> np.ndarray:
        """Which test items leak."""
        return np.array(sorted({leak.test for leak in self.found}), np.int64)

    def plain(self) -> dict[str, Any]:
        first = [{"test": a, "train": b, "alike": alike, "how": how} for a, b, alike, how in self.names]
        near = len(self.places) - self.exact
        return {"tested": self.tested, "exact": self.exact, "near": near, "how": self.how, "first": first}

    def lines(self) -> list[str]:
        if not self.found:
            return [f"Leaks: no test item is a copy of a training item, or near one ({self.how})"]
        near = len(self.places) - self.exact
        share = len(self.places) / self.tested
        return [
            f"Leaks: {self.exact:,} test items are copies of training items and {near:,} near ones, {share:.1%} of all ({self.how})"
        ]

    def html(self) -> str:
        if not self.names:
            return ""
        rows = "".join(
            f"<tr><td>{escape(a)}</td><td>{escape(b)}</td><td class=n>{alike:.3f}</td><td>{how}</td></tr>"
            for a, b, alike, how in self.names
        )
        return f"<h2>Leaks</h2><table><tr><th>test</th><th>train</th><th>alike</th><th></th></tr>{rows}</table>"


def audit(
    modality: Modality,
    train: Sequence[Any],
    test: Sequence[Any],
    where: tuple[Sequence[str], Sequence[str]],
    seed: int = 0,
) -> Leaks:
    """What checked training items give away of checked test items of one stream. `where` names those of training and of test."""
    looked = train[:TRAIN]
    found = {leak.test: leak for leak in copies(modality, looked, test)}
    rest = [place for place in range(len(test)) if place not in found]
    near, how = near_ones(modality, looked, [test[place] for place in rest], seed)
    for leak in near:
        found[rest[leak.test]] = leak._replace(test=rest[leak.test])
    if len(train) > TRAIN:
        how += f"; among {TRAIN:,} of {len(train):,} training items"
    listed = sorted(found.values(), key=lambda leak: (-leak.alike, leak.test))
    names = [
        (where[1][leak.test], where[0][leak.train], round(leak.alike, 4), "exact" if leak.exact else "near")
        for leak in listed[:LISTED]
    ]
    return Leaks(len(test), listed, how, names)


def copies(modality: Modality, train: Sequence[Any], test: Sequence[Any]) -> list[Leak]:
    """Test items whose canonical bytes are those of a training item."""
    known: dict[bytes, int] = {}
    for place, raw in enumerate(train):
        known.setdefault(hashlib.sha256(modality.content(raw)).digest(), place)
    hashes = [hashlib.sha256(modality.content(raw)).digest() for raw in test]
    return [Leak(place, known[one], 1.0, True) for place, one in enumerate(hashes) if one in known]


def near_ones(modality: Modality, train: Sequence[Any], test: Sequence[Any], seed: int) -> tuple[list[Leak], str]:
    """(test items that are near a training item, what near means)."""
    if not len(train) or not len(test):
        return [], "copies by SHA-256"
    first = modality.shingles(train[0])
    if first is None:
        features, *_ = modality.features(train[:LEARNED])
        looked = max(NUMBERS // max(features.of(train[:1]).shape[1], 1), LEARNED)
        fewer = f", among {looked:,} training items" if looked < len(train) else ""
        return by_distance(features, train[:looked], test, seed), (
            f"by SHA-256; near: within {DISTANCE:g} of the distance of two items at random, in {features.name}{fewer}"
        )
    train_sets, test_sets = ([_hashes(modality, raw) for raw in some] for some in (train, test))
    total = sum(map(len, train_sets)) + sum(map(len, test_sets))
    step = -(-total // HASHES)
    if step > 1:
        train_sets, test_sets = ([_some(one, step) for one in sets] for sets in (train_sets, test_sets))
    if first.contained:
        return by_containment(train_sets, test_sets), f"by SHA-256; near: {CONTAINED:.0%} of the k-mers of the shorter"
    return by_jaccard(train_sets, test_sets, seed), f"by SHA-256; near: Jaccard of shingles {JACCARD:g} or more"


def _hashes(modality: Modality, raw: Any) -> np.ndarray:
    found = modality.shingles(raw)
    return np.zeros(0, np.uint64) if found is None else found.hashes


def _some(hashes: np.ndarray, step: int) -> np.ndarray:
    return hashes[mixed(hashes ^ np.uint64(0x5EED)) % np.uint64(step) == 0]


def shared(one: np.ndarray, other: np.ndarray) -> int:
    """How many of two sets of hashes, each in order, are the same."""
    return len(np.intersect1d(one, other, assume_unique=True))


def by_jaccard(train: Sequence[np.ndarray], test: Sequence[np.ndarray], seed: int) -> list[Leak]:
    """Near ones by MinHash: those that share a band, confirmed."""
    draw = numpy_generator("minhash", seed)
    keys = draw.integers(1, 2**63, BANDS * ROWS, dtype=np.uint64)
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for place, hashes in enumerate(train):
        for band in _bands(hashes, keys):
            buckets[band].append(place)
    found = []
    for place, hashes in enumerate(test):
        candidates = {other for band in _bands(hashes, keys) for other in buckets.get(band, ())[:POSTINGS]}
        best, alike = -1, 0.0
        for other in sorted(candidates):
            common = shared(hashes, train[other])
            j = common / max(len(hashes) + len(train[other]) - common, 1)
            best, alike = (other, j) if j > alike else (best, alike)
        if alike >= JACCARD:
            found.append(Leak(place, best, alike, False))
    return found


def _bands(hashes: np.ndarray, keys: np.ndarray) -> list[tuple[int, bytes]]:
    if not len(hashes):
        return []
    least = mixed(hashes ^ keys[:, None]).min(1)
    return [(band, least[band * ROWS : (band + 1) * ROWS].tobytes()) for band in range(BANDS)]


def by_containment(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> list[Leak]:
    """Near ones by shared k-mers, found in an index of the training items by k-mer."""
    owners = np.repeat(np.arange(len(train)), [len(hashes) for hashes in train])
    every = np.concatenate(train) if len(train) else np.zeros(0, np.uint64)
    order = np.argsort(every, kind="stable")
    every, owners = every[order], owners[order]
    found = []
    for place, hashes in enumerate(test):
        if not len(hashes):
            continue
        begins = np.searchsorted(every, hashes, "left")
        ends = np.minimum(np.searchsorted(every, hashes, "right"), begins + POSTINGS)
        near = np.concatenate([owners[a:b] for a, b in zip(begins, ends) if b > a] or [np.zeros(0, np.int64)])
        if not len(near):
            continue
        candidates, counts = np.unique(near, return_counts=True)
        sizes = np.minimum([len(train[other]) for other in candidates], len(hashes))
        contained = counts / sizes
        best = int(contained.argmax())
        if contained[best] >= CONTAINED:
            found.append(Leak(place, int(candidates[best]), float(contained[best]), False))
    return found


def by_distance(
    features: Features, train: Sequence[Any], test: Sequence[Any], seed: int, step: int = 512
) -> list[Leak]:
    """Near ones by the distance of raw features; the nearest by a random projection, confirmed by the true distance."""
    x, y = (features.of(some).astype(np.float32) for some in (train, test))
    size = x.std(0) if features.scaling == "each" else np.ones(x.shape[1], np.float32)
    size = np.where(size > 0, size, 1.0)
    x, y = (x - x.mean(0)) / size, (y - x.mean(0)) / size
    usual = float(np.sqrt(2 * x.var(0).sum()))  # of two items at random, by root mean square
    if not usual > 0:
        return []
    draw = numpy_generator("projection", seed)
    wide = x.shape[1] > PROJECTED
    way = draw.standard_normal((x.shape[1], PROJECTED)).astype(np.float32) / PROJECTED**0.5 if wide else None
    small_x, small_y = (x, y) if way is None else (x @ way, y @ way)
    lengths, found = np.square(small_x).sum(1), []
    few = min(8, len(x))
    for start in range(0, len(y), step):
        apart = lengths - 2 * small_y[start : start + step] @ small_x.T
        for row, near in enumerate(np.argpartition(apart, few - 1, axis=1)[:, :few]):
            true = np.linalg.norm(x[near] - y[start + row], axis=1)
            best = int(true.argmin())
            if true[best] <= DISTANCE * usual:
                found.append(Leak(start + row, int(near[best]), float(1 - true[best] / usual), False))
    return found
