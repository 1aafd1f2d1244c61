"""DNA as words of k bases, one after another or overlapping.

    z_i = 5 + sum_j 4^(k-1-j) c(x_(ik+j)),  c = 0 1 2 3 for A C G T        overlap: x_(i+j)

Ids: pad, unk, bos, eos, mask, the 4^k words, then the single letters A C G T N (for k = 1, only N is left to add).
Without overlap, what is no whole word of A C G T (a word with N in it, the rest at the end) is given letter by letter:
nothing is lost. As in the Nucleotide Transformer, doi:10.1038/s41592-024-02523-z (k = 6); overlapping, DNABERT,
doi:10.1093/bioinformatics/btab083 (k = 3 … 6); k = 1: HyenaDNA, arXiv:2306.15794.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, letters, line, need_text, table
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens

BASES = "ACGT"
N, AMBIGUOUS, WRONG = 4, 5, 6
CODES = table(BASES + "N" + "RYSWKMBDHV", [0, 1, 2, 3, N] + [AMBIGUOUS] * 10, WRONG).astype(np.uint8)


class Kmer(Tokenizer):
    """str of A C G T N in any case → ids [n]. Lossless on upper case A C G T N when `overlap` is off.

    The other IUPAC letters (R Y S W K M B D H V) are unk, which decodes to N. With `overlap`, so is every word with a
    letter other than A C G T in it; decoding it gives N where no neighbouring word knows the base.
    """

    class Config(Tokenizer.Config):
        k: int = Field(6, ge=1, le=8)
        """Bases in a word; there are 4^k words."""
        overlap: bool = False
        """Whether a word begins at every base, instead of where the last one ended."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.specials = {"pad": 0, "unk": 1, "bos": 2, "eos": 3, "mask": 4}
        k, first = config.k, len(self.specials)
        self._powers = 4 ** np.arange(k - 1, -1, -1, dtype=np.int64)
        words = (np.arange(4**k)[:, None] // self._powers) % 4
        single = first if k == 1 else first + 4**k
        self._single = np.array([single, single + 1, single + 2, single + 3, first + 4**k + 4 * (k > 1), 1])
        """The id of a letter by its code: A C G T N, ambiguous."""
        self.size = int(self._single[N]) + 1
        self._letters = np.zeros((self.size, k), np.uint8)
        """What an id stands for, as bytes; 0 is nothing."""
        self._letters[first : first + 4**k] = letters(BASES)[words]
        self._letters[self._single, 0] = letters(BASES + "NN")

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[str]:
        draw = numpy_generator("dna", seed)
        genes = ["".join(draw.choice(list(BASES), draw.integers(12, 40))) for _ in range(24)]
        return [gene[:5] + "TATAAA" + gene[5:] for gene in genes]

    def encode(self, raw: Any) -> Tokens:
        """Raises ValueError for a character that is no IUPAC letter of DNA, with its position from 0."""
        text = need_text(raw, self)
        codes = CODES.take(letters(text))
        most = codes.max(initial=0)
        if most == WRONG:
            place = int(np.argmax(codes == WRONG))
            hint = ": write T for U" if text[place] in "Uu" else ""
            raise ValueError(f"{text[place]!r} at position {place} is not a letter of DNA (A C G T N){hint}")
        slide = self.config.overlap and len(codes) >= self.config.k
        ids = self._sliding(codes, most < N) if slide else self._side_by_side(codes, most < N)
        return Tokens(ids, line(len(ids)))

    def _words(self, codes: np.ndarray, step: int, count: int) -> np.ndarray:
        """The ids of `count` words, one every `step` bases, as if all were of A C G T, [count] int64."""
        found = codes[: step * count : step].astype(np.int64)
        for place in range(1, self.config.k):
            found <<= 2
            found += codes[place : place + step * count : step]
        found += len(self.specials)
        return found

    def _side_by_side(self, codes: np.ndarray, whole_words: bool) -> np.ndarray:
        k = self.config.k
        if k == 1:
            return self._single.take(codes)
        count = len(codes) // k
        words = self._words(codes, k, count)
        rest = self._single.take(codes[k * count :])
        if whole_words:
            return np.concatenate([words, rest])
        ids = self._single.take(codes[: k * count]).reshape(-1, k)
        good = (codes[: k * count].reshape(-1, k) < N).all(1)
        ids[good, 0] = words[good]
        kept = np.ones(ids.shape, dtype=bool)
        kept[good, 1:] = False
        return np.concatenate([ids[kept], rest])

    def _sliding(self, codes: np.ndarray, whole_words: bool) -> np.ndarray:
        k = self.config.k
        ids = self._words(codes, 1, len(codes) - k + 1)
        if not whole_words:
            good = (np.lib.stride_tricks.sliding_window_view(codes, k) < N).all(1)
            ids[~good] = self.specials["unk"]
        return ids

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> str:
        ids = np.asarray(values)
        ids = ids[(ids == self.specials["unk"]) | (ids >= len(self.specials))]
        spelled = self._letters[ids]
        whole = (spelled > 0).all(1)
        if self.config.overlap and (whole | (ids == self.specials["unk"])).all() and len(ids):
            spelled = self._laid_over(spelled, whole)
        return spelled[spelled > 0].tobytes().decode("ascii")

    def _laid_over(self, spelled: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """The bases [n + k - 1] of n overlapping words [n k], N where none of the whole words says what it is."""
        count, k = spelled.shape
        bases = np.full(count + k - 1, ord("N"), np.uint8)
        for place in range(k):
            bases[place : place + count][whole] = spelled[whole, place]
        return bases

    def spans(self, raw: Any) -> np.ndarray:
        """The bases of each word or single letter."""
        ids = self.encode(raw).values
        if self.config.overlap and len(raw) >= self.config.k:
            begins = np.arange(len(ids))
            return np.stack([begins, begins + self.config.k], axis=1)
        ends = np.cumsum((self._letters[ids] > 0).sum(1))
        return np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)[: len(ids)].astype(np.int64)

    def piece(self, id: int) -> str:
        if id < len(self.specials):
            return super().piece(id)
        return bytes(self._letters[id][self._letters[id] > 0]).decode("ascii")
