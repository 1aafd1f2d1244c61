"""Any tokenizer of sequences with sentinels more: ids that each stand for a hidden span.

    z_i = tau(x)_i, 0 ... V-1;   sentinels V + count - 1, V + count - 2, ... V, in the order in which they are used

Raffel 2019 (T5), arXiv:1910.10683 section 3.1.4, which takes the last ids of the vocabulary. No raw item is made into one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, check_ready
from sevenfold.blocks.tokenization._more import More
from sevenfold.core import part
from sevenfold.core.types import Tokens


class Sentinels(More):
    """What the inner tokenizer takes → its ids; `count` ids behind them are the sentinels, the last one the first."""

    class Config(Tokenizer.Config):
        of: Tokenizer.Config = part.default("bytes")
        """How the items themselves become ids."""
        count: int = Field(100, ge=1, le=1 << 16)
        """How many sentinels: the most spans that can be hidden in one item."""

    variants = ({"of": {"kind": "bpe", "size": 300}, "count": 8},)

    def add(self, first: int) -> None:
        self.size = first + self.config.count
        self.specials = dict(self.inner.specials)
        self.sentinels = range(self.size - 1, first - 1, -1)

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[Any]:
        return cls.Config().of.part.example(seed)

    def fit(self, raws: Iterable[Any]) -> None:
        self.inner.fit(raws)
        self._known()

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        return self.inner.encode(raw)

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> Any:
        check_ready(self)
        ids = np.asarray(values)
        return self.inner.decode(ids[ids < (self.inner.size or 0)])

    def spans(self, raw: Any) -> np.ndarray | None:
        return self.inner.spans(raw)

    def piece(self, id: int) -> str:
        return f"<{self.sentinels.index(id)}>" if id in self.sentinels else self.inner.piece(id)
