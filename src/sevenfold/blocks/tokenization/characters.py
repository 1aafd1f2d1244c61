"""Characters as ids, those of the training text; all others are one unknown token.

    z_i = place of x_i in the sorted alphabet,  or unk

Specials pad unk bos eos mask come first. Karpathy 2015 (char-rnn), karpathy.github.io/2015/05/21/rnn-effectiveness;
CANINE, arXiv:2103.06874, hashes code points instead.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, check_ready, line, need_text
from sevenfold.blocks.tokenization._text import frequent_letters, printable, sentences
from sevenfold.core.errors import CheckpointError, DataError
from sevenfold.core.files import read_json, write_atomic
from sevenfold.core.types import Tokens

FILE = "vocab.json"
UNKNOWN = "\ufffd"
"""What an unknown character is decoded to."""


class Characters(Tokenizer):
    """str → ids [n], n the number of code points. Lossless on the alphabet of the training text."""

    class Config(Tokenizer.Config):
        size: int = Field(8192, ge=6, le=1_200_000)
        """The most ids, special tokens included: the most frequent characters are kept."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.specials = {"pad": 0, "unk": 1, "bos": 2, "eos": 3, "mask": 4}
        self.alphabet = ""

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[str]:
        return sentences(seed)

    def fit(self, raws: Iterable[Any]) -> None:
        counts: Counter[str] = Counter()
        for raw in raws:
            counts.update(need_text(raw, self))
        if not counts:
            raise DataError("the characters tokenizer was given no text to learn from")
        self._adopt("".join(frequent_letters(counts, self.config.size - len(self.specials))))

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        points = np.frombuffer(need_text(raw, self).encode("utf-32-le"), np.uint32)
        place = np.searchsorted(self._points, points).clip(max=len(self._points) - 1)
        known = self._points[place] == points
        ids = np.where(known, place + len(self.specials), self.specials["unk"]).astype(np.int64)
        return Tokens(ids, line(len(ids)))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> str:
        check_ready(self)
        ids = np.asarray(values)
        ids = ids[(ids == self.specials["unk"]) | (ids >= len(self.specials))]
        table = np.concatenate([np.full(len(self.specials), ord(UNKNOWN), np.uint32), self._points])
        return table[ids].astype("<u4").tobytes().decode("utf-32-le")

    def spans(self, raw: Any) -> np.ndarray:
        starts = np.arange(len(need_text(raw, self)))
        return np.stack([starts, starts + 1], 1)

    def piece(self, id: int) -> str:
        place = id - len(self.specials)
        return printable(self.alphabet[place]) if 0 <= place < len(self.alphabet) else super().piece(id)

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        write_atomic(Path(folder) / FILE, json.dumps(list(self.alphabet), ensure_ascii=False) + "\n")
        return [*names, FILE]

    def restore(self, folder: Path) -> None:
        path = Path(folder) / FILE
        found = read_json(path)
        if (
            not isinstance(found, list)
            or not found
            or any(type(letter) is not str or len(letter) != 1 or "\ud800" <= letter <= "\udfff" for letter in found)
            or found != sorted(set(found))
        ):
            raise CheckpointError(f"{path}: is not a sorted list of characters")
        self._adopt("".join(found))

    def _adopt(self, alphabet: str) -> None:
        self.alphabet = alphabet
        self._points = np.frombuffer(alphabet.encode("utf-32-le"), np.uint32)
        self.size = len(self.specials) + len(alphabet)
