"""Written language: a str becomes ids along one axis.

By default bytes (nothing to learn); `bpe` for anything larger. GPT-2, BERT, T5, and the text side of CLIP and LLaVA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sevenfold.modality import Modality
from sevenfold.modality._strings import facts, need_string, shown


class Text(Modality):
    class Config(Modality.Config):
        ends: bool = True
        """Whether a begin and an end token are put around an item."""

    axes = ("token",)

    def check(self, raw: Any) -> str:
        """A str that is not empty, unchanged."""
        return need_string(raw, "a text")

    def summary(self, raws: Sequence[str]) -> dict[str, Any]:
        return facts(raws, "characters")

    def html(self, raw: str) -> str:
        return shown(raw)
