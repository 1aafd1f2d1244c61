"""A label for every token of another stream: `HHEEC-` beside a protein of six residues.

A letter such as `-` or `?` stands for a place of which nothing is known: it is no target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.core import part
from sevenfold.core.align import changed
from sevenfold.modality import Modality
from sevenfold.modality._strings import shown


class TokenLabels(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("tags")
        """How raw items become tokens."""

    axes = ("place",)

    task = "tokens"

    def check(self, raw: Any) -> str | tuple[Any, ...]:
        """A str with one letter per token, or a list of labels (None where nothing is known); not empty."""
        if not isinstance(raw, str | list | tuple):
            raise ValueError(f"labels of tokens are a str of letters or a list, not {str(raw)[:40]!r}")
        if not len(raw):
            raise ValueError("the labels are empty")
        if not isinstance(raw, str) and any(isinstance(one, list | tuple | dict) for one in raw):
            raise ValueError("labels of tokens are words or whole numbers, one for each token")
        return raw if isinstance(raw, str) else tuple(raw)

    def remarks(self, raws: Sequence[Any]) -> list[str]:
        counts = Counter(label for raw in raws for label in raw)
        once = [f"{label!r}" for label, count in counts.items() if count == 1]
        return [f"one training token alone has the label {', '.join(once[:5])}"] if once else []

    def summary(self, raws: Sequence[Any]) -> dict[str, Any]:
        counts = Counter(label for raw in raws for label in raw)
        total = sum(counts.values())
        top = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))[:8]
        return {
            "items": len(raws),
            "tokens in all": total,
            "most frequent": ", ".join(f"{label!r} {100 * count / total:.1f}%" for label, count in top),
        }

    def html(self, raw: Any) -> str:
        return shown(self.plain(raw))

    def plain(self, raw: Any) -> str:
        return raw if isinstance(raw, str) else " ".join("-" if one is None else str(one) for one in raw)

    def edits(self, raw: Any, draw: np.random.Generator) -> dict[str, Any]:
        """The label of one token is that of another one."""
        place, other = draw.integers(len(raw), size=2).tolist()
        return {"one label replaced": raw[:place] + raw[other : other + 1] + raw[place + 1 :]}

    def error(self, raw: Any, back: Any) -> float:
        """The share of tokens whose label differs."""
        same = len(raw) == len(back)
        return sum(a != b for a, b in zip(raw, back)) / len(raw) if same else changed(str(raw), str(back))

    error_unit = "share of tokens"
