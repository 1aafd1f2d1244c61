"""A tokenizer of sequences with a few ids more behind its own: what `sentinels` and `placed` have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sevenfold.blocks.tokenization import Tokenizer, check_ready
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.files import write_atomic

FILE = "tokenizer_config.json"


class More(Tokenizer):
    """Base of tokenizers whose Config has `of`, the tokenizer that makes the other ids."""

    choose = "bytes, bpe, kmer or residue"
    """What `of` may be, in words."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.inner: Tokenizer = config.of.build()
        self.lossless, self.idempotent = type(self.inner).lossless, self.inner.idempotent  # type: ignore[misc]
        if self.inner.axes != 1 or self.inner.features is not None:
            raise ConfigError(f"tokenizer.of: {config.of.kind!r} does not make ids in a line: choose {self.choose}")
        self._known()

    def _known(self) -> None:
        """Take up what is new, once the inner tokenizer has its ids."""
        if self.inner.size is not None:
            self.add(self.inner.size)

    def add(self, first: int) -> None:
        """Set `size` and `specials` (or more), the first id more being `first`."""
        raise NotImplementedError

    def around(self) -> tuple[list[int], list[int]]:
        return self.inner.around()

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
        self._known()
