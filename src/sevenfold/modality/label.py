"""Labels: one of a fixed set of words or whole numbers becomes one id, without a place.

A class to predict or a condition to generate from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization._labelled import label_of
from sevenfold.core import part
from sevenfold.modality import Modality


class Label(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("category")
        """How raw items become tokens."""

    task = "classes"

    def check(self, raw: Any) -> str | int:
        """A str that is not empty, or an int."""
        label = label_of(raw)
        if label == "":
            raise ValueError("the label is empty")
        return label

    def remarks(self, raws: Sequence[Any]) -> list[str]:
        counts = Counter(label_of(raw) for raw in raws)
        if len(counts) == 1:
            return [f"all {len(raws)} training items are {next(iter(counts))!r}: there is nothing to tell apart"]
        once = [f"{label!r}" for label, count in counts.items() if count == 1]
        more = f" and {len(once) - 5} more" if len(once) > 5 else ""
        return [f"one training item alone is {', '.join(once[:5])}{more}"] if once else []

    def summary(self, raws: Sequence[Any]) -> dict[str, Any]:
        counts = Counter(label_of(raw) for raw in raws)
        top = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))[:8]
        return {
            "items": len(raws),
            "different labels": len(counts),
            "most frequent": ", ".join(f"{label!r} {count}" for label, count in top),
        }
