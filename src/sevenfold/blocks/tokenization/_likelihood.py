"""Merges by likelihood: which two pieces belong together more than chance says.

    score(a, b) = n(ab) / (n(a) n(b))          n: counts in the text as it is cut now

A merge lowers n(a) and n(b), so every pair with a or b in it gains, also in words that did not change: those are scored
again. Ties: the more frequent pair, then the smaller one by its letters. Schuster and Nakajima 2012,
doi:10.1109/ICASSP.2012.6289079.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

MARK = "##"
"""What a piece inside a word begins with."""
Pair = tuple[str, str]


def joined(a: str, b: str) -> str:
    """The piece that two neighbours make."""
    return a + b.removeprefix(MARK)


def cut(word: str) -> list[str]:
    """A word as its letters, all but the first marked."""
    return [letter if place == 0 else MARK + letter for place, letter in enumerate(word)]


def merged(symbols: Sequence[str], pair: Pair) -> list[str]:
    """Every occurrence of the pair, from the left, made one piece."""
    found: list[str] = []
    place = 0
    while place < len(symbols):
        if place + 1 < len(symbols) and (symbols[place], symbols[place + 1]) == pair:
            found.append(joined(*pair))
            place += 2
        else:
            found.append(symbols[place])
            place += 1
    return found


def merges(words: Mapping[str, int], min_count: int) -> Iterator[Pair]:
    """The pairs that are merged, best first, for words with their counts; pairs must occur `min_count` times."""
    return _Trainer(words, min_count).run()


class _Trainer:
    """The text as it is cut now, its counts, and a heap of pairs by score with entries that may be out of date."""

    def __init__(self, words: Mapping[str, int], min_count: int):
        self.min_count = min_count
        self.words = [cut(word) for word in words]
        self.times = list(words.values())
        self.pieces: Counter[str] = Counter()
        self.pairs: Counter[Pair] = Counter()
        self.where: defaultdict[Pair, set[int]] = defaultdict(set)
        self.near: defaultdict[str, set[Pair]] = defaultdict(set)
        """The pairs that a piece is in."""
        for index in range(len(self.words)):
            self._count(index, 1)
        self.heap = [entry for pair in self.pairs if (entry := self._entry(pair)) is not None]
        heapq.heapify(self.heap)

    def _count(self, index: int, sign: int) -> set[Pair]:
        """Add or take away what one word counts; returns its pairs."""
        symbols, times = self.words[index], sign * self.times[index]
        touched = set()
        for symbol in symbols:
            self.pieces[symbol] += times
        for pair in zip(symbols, symbols[1:]):
            self.pairs[pair] += times
            touched.add(pair)
        for pair in touched:
            if sign > 0:
                self.where[pair].add(index)
                self.near[pair[0]].add(pair)
                self.near[pair[1]].add(pair)
            else:
                self.where[pair].discard(index)
                if not self.where[pair]:
                    del self.pairs[pair], self.where[pair]
                    self.near[pair[0]].discard(pair)
                    self.near[pair[1]].discard(pair)
        return touched

    def _entry(self, pair: Pair) -> tuple[float, int, Pair] | None:
        count = self.pairs.get(pair, 0)
        if count < self.min_count:
            return None
        return -count / (self.pieces[pair[0]] * self.pieces[pair[1]]), -count, pair

    def run(self) -> Iterator[Pair]:
        while self.heap:
            entry = heapq.heappop(self.heap)
            pair = entry[2]
            if entry != self._entry(pair):
                continue  # out of date: a newer entry is in the heap, or the pair is gone
            changed: set[Pair] = set()
            for index in list(self.where[pair]):
                changed |= self._count(index, -1)
                self.words[index] = merged(self.words[index], pair)
                changed |= self._count(index, 1)
            yield pair
            for other in changed | self.near[pair[0]] | self.near[pair[1]]:
                fresh = self._entry(other)
                if fresh is not None:
                    heapq.heappush(self.heap, fresh)
