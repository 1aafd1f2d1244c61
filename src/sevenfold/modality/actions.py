"""Actions over time: an array [steps numbers], discrete and continuous columns mixed, becomes ids along two axes, time and
column.

Each number is binned within its own column (`action_bin`, as in RT-1 and Gato); a missing one makes no token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization.action_bin import actions
from sevenfold.core import part
from sevenfold.core.errors import DataError
from sevenfold.data.source.series import read_table
from sevenfold.modality import Augmentation, Modality, Suggestion
from sevenfold.modality._drawn import curves, sparks
from sevenfold.modality._features import Features, series_features
from sevenfold.modality._strings import spread


class Actions(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("action_bin")
        """How raw items become tokens."""

    axes = ("time", "column")

    def check(self, raw: Any) -> np.ndarray:
        """[T A] float64, NaN where a number is missing, from an array [T] or [T A]."""
        return actions(raw)

    def summary(self, raws: Sequence[Any]) -> dict[str, Any]:
        if not raws:
            return {"items": 0}
        found = [self.check(raw) for raw in raws]
        every = np.concatenate([rows for rows in found if rows.shape[1] == found[0].shape[1]])
        told = []
        for column in every.T:
            known = np.unique(column[np.isfinite(column)])
            few = len(known) <= 8 and bool((known == np.rint(known)).all())
            told.append(" ".join(f"{v:g}" for v in known) if few else f"{known.min():.3g} … {known.max():.3g}")
        return {
            "items": len(found),
            "steps, least / median / most": spread([len(rows) for rows in found]),
            "columns": "; ".join(told[:8]),
        }

    def features(self, train: Sequence[Any]) -> tuple[Features, ...]:
        """Statistics of each column over time; and the values, where all items have one shape."""
        return series_features(train)

    def html(self, raw: Any) -> str:
        rows = self._rows(raw)
        return curves(rows, f"actions of {len(rows)} steps, {rows.shape[1]} numbers each")

    def plain(self, raw: Any) -> str:
        """A line of blocks per column, the first eight."""
        return "\n".join(sparks(column) for column in self._rows(raw).T[:8])

    @staticmethod
    def _rows(raw: Any) -> np.ndarray:
        rows = np.asarray(raw, np.float64)
        return rows[:, None] if rows.ndim == 1 else rows

    def file(self, raw: Any) -> tuple[str, bytes]:
        """(".csv", a step a line)."""
        rows = self._rows(raw)
        head = ",".join(f"column_{place}" for place in range(1, rows.shape[1] + 1))
        lines = [",".join("" if np.isnan(number) else f"{number:.7g}" for number in row) for row in rows.tolist()]
        return ".csv", "\n".join([head, *lines, ""]).encode()

    def typed(self, text: str) -> np.ndarray:
        """The numbers that are typed, one a step, or the rows of the .csv or .npy of that name."""
        try:
            return self.check(np.array([float(word) for word in text.replace(",", " ").split()]))
        except ValueError:
            try:
                return self.check(read_table(text)[0])
            except DataError as error:
                raise ValueError(str(error)) from None

    def edits(self, raw: Any, draw: np.random.Generator) -> dict[str, np.ndarray]:
        """One number exchanged for that of another step, and the last step taken off."""
        rows = self.check(raw)
        step, other = draw.integers(len(rows), size=2).tolist()
        one = rows.copy()
        one[step, -1] = rows[other, -1]
        edits = {"one number of another step": one} if np.isfinite(one).any() else {}
        if len(rows) > 1 and np.isfinite(rows[:-1]).any():
            edits["last step taken off"] = rows[:-1]
        return edits

    def error(self, raw: Any, back: Any) -> float:
        """Root mean square of the difference, over the standard deviation of each column of the item."""
        rows, other = self.check(raw), self._rows(back)
        if rows.shape != other.shape:
            return 1.0
        spreads = np.nanstd(rows, axis=0)
        away = (rows - other) / np.where(spreads > 0, spreads, 1.0)
        return float(np.sqrt(np.nanmean(away**2)))

    error_unit = "root mean square, standard deviations of the column"

    def augmentation(self) -> Augmentation:
        """A piece of the steps."""
        return Augmentation(({"kind": "crop", "share": (0.5, 1.0)},), ({"kind": "crop", "share": (0.2, 0.5)},))

    @classmethod
    def suggest(cls, name: str, raws: Sequence[Any], items: int) -> Suggestion | None:
        """The next number of the next step is predicted from all before."""
        found = [actions(raw) for raw in raws]
        if not found:
            return None
        tokens = float(np.median([rows.size for rows in found]))
        return Suggestion(
            stream={
                "kind": "actions",
                "tokenizer": {"kind": "action_bin", "bins": 64},
                "length": int(min(tokens, 512)),
            },
            trunks={
                "lm": {"inputs": [name], "mask": {"causal": True}, "position": "axial_rotary", "class_token": True}
            },
            objective={"kind": "next_token"},
            train={"batch": 16},
            tokens=tokens,
            why=[f"{name}: a token for each number of each step, predicted from those before it"],
        )
