"""A text tokenizer with one word more: the placeholder, where something else is spliced into the text.

    z = [tau(x_1), place, tau(x_2), place, …],   x = x_1 <image> x_2 <image> …

Liu 2023 (LLaVA), arXiv:2304.08485; Alayrac 2022 (Flamingo), arXiv:2204.14198 section 3.1. The pieces between placeholders
are tokenized each by itself. A trunk says what stands there (`entries.….splice`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, check_ready, line, need_text
from sevenfold.blocks.tokenization._more import More
from sevenfold.core import part
from sevenfold.core.types import Tokens


class Placed(More):
    """str → ids [n]; the placeholder has the id behind all others."""

    class Config(Tokenizer.Config):
        of: Tokenizer.Config = part.default("bytes")
        """How the text itself becomes ids."""
        place: str = Field("<image>", min_length=1, max_length=64)
        """How the placeholder is written."""

    variants = ({"of": {"kind": "bpe", "size": 300}, "place": "[x]"},)

    choose = "bpe or bytes"

    def add(self, first: int) -> None:
        self.size = first + 1
        self.specials = {**self.inner.specials, "place": first}

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[str]:
        texts = cls.Config().of.part.example(seed)
        return [
            text if row % 3 == 0 else f"{text[: 2 * row]}<image>{text[2 * row :]}" for row, text in enumerate(texts)
        ]

    def _pieces(self, raw: Any) -> list[str]:
        return need_text(raw, self).split(self.config.place)

    def fit(self, raws: Iterable[Any]) -> None:
        self.inner.fit(piece for raw in raws for piece in self._pieces(raw) if piece)
        self._known()

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        place, found = np.array([self.specials["place"]]), []
        for number, piece in enumerate(self._pieces(raw)):
            found += ([place] if number else []) + ([self.inner.encode(piece).values] if piece else [])
        ids = np.concatenate(found) if found else np.zeros(0, np.int64)
        return Tokens(ids, line(len(ids)))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> str:
        check_ready(self)
        ids = np.asarray(values)
        cuts = np.flatnonzero(ids == self.specials["place"])
        pieces = np.split(ids, cuts)
        return self.config.place.join(self.inner.decode(piece[number > 0 :]) for number, piece in enumerate(pieces))

    def spans(self, raw: Any) -> np.ndarray | None:
        check_ready(self)
        start, found = 0, []
        for number, piece in enumerate(self._pieces(raw)):
            if number:
                found.append(np.array([[start, start + len(self.config.place)]]))
                start += len(self.config.place)
            inside = self.inner.spans(piece) if piece else np.zeros((0, 2), np.int64)
            if inside is None:
                return None
            found.append(inside + start)
            start += len(piece)
        return np.concatenate(found)

    def piece(self, id: int) -> str:
        return self.config.place if id == self.specials.get("place") else self.inner.piece(id)
