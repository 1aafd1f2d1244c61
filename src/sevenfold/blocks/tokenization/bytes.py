"""UTF-8 bytes as ids: nothing to learn, no text that it cannot take.

    z_i = byte i of utf8(x), 0 ... 255;  256 pad, 257 bos, 258 eos, 259 mask

Xue et al. 2021 (ByT5), arXiv:2105.13626 sec. 3.1, which puts the specials first. ByT5, MegaByte, Evo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer, line, need_text
from sevenfold.blocks.tokenization._text import printable, sentences
from sevenfold.core.types import Tokens


class Bytes(Tokenizer):
    """str → ids [n], n the number of bytes. Wrong UTF-8 is decoded as U+FFFD."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.specials = {"pad": 256, "bos": 257, "eos": 258, "mask": 259}
        self.size = 260

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[str]:
        return sentences(seed)

    def encode(self, raw: Any) -> Tokens:
        ids = np.frombuffer(need_text(raw, self).encode("utf-8"), dtype=np.uint8).astype(np.int64)
        return Tokens(ids, line(len(ids)))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> str:
        ids = np.asarray(values)
        return ids[ids < 256].astype(np.uint8).tobytes().decode("utf-8", errors="replace")

    def spans(self, raw: Any) -> np.ndarray:
        """The character that each byte is from (several bytes may be from one)."""
        ids = np.frombuffer(need_text(raw, self).encode("utf-8"), dtype=np.uint8)
        ends = np.cumsum((ids & 0xC0) != 0x80)
        return np.stack([ends - 1, ends], axis=1).astype(np.int64)

    def piece(self, id: int) -> str:
        if id >= 256:
            return super().piece(id)
        return printable(chr(id)) if id < 128 else f"\\x{id:02x}"
