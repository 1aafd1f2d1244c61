"""Several labels at once: any number of a fixed set of words become one vector of 0 and 1, without a place.

What a protein does, the subjects of a text: an item may have none, one or many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization.multi_hot import flags, several
from sevenfold.core import part
from sevenfold.modality import Modality


class Labels(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("multi_hot")
        """How raw items become tokens."""

    task = "labels"

    def check(self, raw: Any) -> tuple[str | int, ...] | np.ndarray:
        """Words or whole numbers in a list, a str with separators, or an array of 0 and 1."""
        if isinstance(raw, np.ndarray):
            return flags(raw)
        return several(raw, getattr(self.config.tokenizer, "separator", ";"))

    def remarks(self, raws: Sequence[Any]) -> list[str]:
        counts = self._counts(raws)
        often = [f"{label!r}" for label, count in counts.items() if count == len(raws)]
        once = [f"{label!r}" for label, count in counts.items() if count <= 1]
        return [
            *([f"all training items have {', '.join(often[:5])}: there is nothing to learn about it"] if often else []),
            *([f"one training item or none has {', '.join(once[:5])}"] if once else []),
        ]

    def _counts(self, raws: Sequence[Any]) -> Counter[str | int]:
        """How many items have each label (0 for places of an array that are never 1)."""
        counts: Counter[str | int] = Counter()
        for raw in map(self.check, raws):
            if isinstance(raw, np.ndarray):
                counts.update({place: int(one) for place, one in enumerate(raw)})
            else:
                counts.update(raw)
        return counts

    def summary(self, raws: Sequence[Any]) -> dict[str, Any]:
        counts = self._counts(raws)
        top = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))[:8]
        each = [self._number(raw) for raw in raws]
        return {
            "items": len(raws),
            "different labels": len(counts),
            "labels of an item": round(sum(each) / len(each), 2) if each else 0,
            "most frequent": ", ".join(f"{label!r} {count}" for label, count in top),
        }

    def _number(self, raw: Any) -> int:
        raw = self.check(raw)
        return int(raw.sum()) if isinstance(raw, np.ndarray) else len(raw)

    def plain(self, raw: Any) -> str:
        raw = self.check(raw)
        found = np.flatnonzero(raw).tolist() if isinstance(raw, np.ndarray) else raw
        return ", ".join(map(str, found)) or "none"
