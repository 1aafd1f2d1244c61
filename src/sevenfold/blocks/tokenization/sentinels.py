"""Any tokenizer of sequences with sentinels more: ids that each stand for a hidden span.

    z_i = tau(x)_i, 0 ... V-1;   sentinels V + count - 1, V + count - 2, ... V, in the order in which they are used

Raffel 2019 (T5), arXiv:1910.10683 section 3.1.4, which takes the last ids of the vocabulary. No raw item is made into one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, check_ready
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.files import write_atomic
from sevenfold.core.types import Tokens

FILE = "tokenizer_config.json"


class Sentinels(Tokenizer):
    """What the inner tokenizer takes → its ids; `count` ids behind them are the sentinels, the last one the first."""

    class Config(Tokenizer.Config):
        of: Tokenizer.Config = part.default("bytes")
        """How the items themselves become ids."""
        count: int = Field(100, ge=1, le=1 << 16)
        """How many sentinels: the most spans that can be hidden in one item."""

    variants = ({"of": {"kind": "bpe", "size": 300}, "count": 8},)

    def __init__(self, config: Any):
        super().__init__(config)
        self.inner: Tokenizer = config.of.build()
        self.lossless, self.idempotent = type(self.inner).lossless, self.inner.idempotent  # type: ignore[misc]
        if self.inner.axes != 1 or self.inner.features is not None:
            raise ConfigError(
                f"tokenizer.of: {config.of.kind!r} does not make ids in a line: choose bytes, bpe, kmer or residue"
            )
        self._ready()

    def _ready(self) -> None:
        if self.inner.size is not None:
            self.size = self.inner.size + self.config.count
            self.specials = dict(self.inner.specials)
            self.sentinels = range(self.size - 1, self.inner.size - 1, -1)

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[Any]:
        return cls.Config().of.part.example(seed)

    def around(self) -> tuple[list[int], list[int]]:
        return self.inner.around()

    def fit(self, raws: Iterable[Any]) -> None:
        self.inner.fit(raws)
        self._ready()

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

    def published(self) -> dict[str, Any]:
        return self.inner.published()

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = self.inner.save(folder)
        record = json.dumps({**self.published(), "sevenfold": part.encode(self.config)}, indent=1, ensure_ascii=False)
        write_atomic(Path(folder) / FILE, record + "\n")
        return list(dict.fromkeys([*names, FILE]))

    def restore(self, folder: Path) -> None:
        self.inner.restore(folder)
        self._ready()
