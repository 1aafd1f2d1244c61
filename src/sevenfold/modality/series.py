"""Time series: an array [time] or [time channels] becomes patches or bins along the axis `time`.

By default patches of 16 steps of all channels (`series_patch`, as in PatchTST); `series_bin` gives ids (Chronos).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization._series import series
from sevenfold.core import part
from sevenfold.core.errors import DataError
from sevenfold.data.source.series import read_table
from sevenfold.modality import Augmentation, Modality, Suggestion
from sevenfold.modality._drawn import curves, sparks
from sevenfold.modality._features import Features, series_features
from sevenfold.modality._strings import spread

TOKENS = 32
"""About how many patches an item is cut into, where nobody says."""


class Series(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("series_patch")
        """How raw items become tokens."""

    axes = ("time",)

    def check(self, raw: Any) -> np.ndarray:
        """[T] or [T C] float32, NaN where a number is missing, from an array of numbers."""
        values = series(raw)
        return values[:, 0] if values.shape[1] == 1 else values

    def summary(self, raws: Sequence[Any]) -> dict[str, Any]:
        if not raws:
            return {"items": 0}
        found = [series(raw) for raw in raws]
        channels = Counter(values.shape[1] for values in found)
        lost = sum(int(np.isnan(values).sum()) for values in found)
        return {
            "items": len(found),
            "time steps, least / median / most": spread([len(values) for values in found]),
            "channels": ", ".join(f"{count} in {times}" for count, times in sorted(channels.items())),
            "least / median / most number": spread([float(np.nanmedian(values)) for values in found]),
            "missing": f"{100 * lost / sum(values.size for values in found):.2f} %",
        }

    def html(self, raw: Any) -> str:
        """A line per channel."""
        values = np.asarray(raw, np.float64)
        values = values[:, None] if values.ndim == 1 else values
        return curves(values, f"series of {len(values)} steps, {values.shape[1]} channels")

    def plain(self, raw: Any) -> str:
        """A line of blocks per channel, the first eight."""
        values = np.asarray(raw, np.float64)
        return "\n".join(sparks(column) for column in (values[:, None] if values.ndim == 1 else values).T[:8])

    def file(self, raw: Any) -> tuple[str, bytes]:
        """(".csv", a time step a line)."""
        rows = np.asarray(raw, np.float64)
        rows = rows[:, None] if rows.ndim == 1 else rows
        head = ",".join(f"channel_{place}" for place in range(1, rows.shape[1] + 1))
        lines = [",".join("" if np.isnan(number) else f"{number:.7g}" for number in row) for row in rows.tolist()]
        return ".csv", "\n".join([head, *lines, ""]).encode()

    def typed(self, text: str) -> np.ndarray:
        """The numbers that are typed, or those in the .csv or .npy of that name."""
        words = text.replace(",", " ").split()
        try:
            return self.check(np.array([float(word) for word in words], np.float32))
        except ValueError:
            try:
                return self.check(read_table(text)[0])
            except DataError as error:
                raise ValueError(str(error)) from None

    def features(self, train: Sequence[Any]) -> tuple[Features, ...]:
        """Statistics, trend, echo and spectrum of each channel; and the values, where all items have one shape."""
        return series_features(train)

    def edits(self, raw: Any, draw: np.random.Generator) -> dict[str, np.ndarray]:
        """One step repeated, one taken out, all scaled by 1.1, noise of 1 % of the spread."""
        values = self.check(raw)
        place = int(draw.integers(len(values)))
        noise = draw.normal(0, 0.01 * (float(np.nanstd(values)) or 1.0), values.shape).astype(np.float32)
        edits = {
            "one step repeated": np.insert(values, place, values[place], axis=0),
            "scaled by 1.1": values * np.float32(1.1),
            "noise of 1 % of the spread": values + noise,
        }
        if len(values) > 1 and np.isfinite(np.delete(values, place, axis=0)).any():
            edits["one step taken out"] = np.delete(values, place, axis=0)
        return edits

    def error(self, raw: Any, back: Any) -> float:
        """Root mean square of the difference, over the standard deviation of the item, where both are known. A tokenizer
        that drops the scale (of the item's own) is held to the scale too."""
        values, other = self.check(raw), np.asarray(back, np.float64)
        if other.ndim != values.ndim or len(other) < 1:
            return 1.0
        length = min(len(values), len(other))
        away = (values[:length] - other[:length]).astype(np.float64)
        return (
            float(np.sqrt(np.nanmean(away**2)) / (float(np.nanstd(values)) or 1.0)) if np.isfinite(away).any() else 1.0
        )

    error_unit = "root mean square, standard deviations of the item"

    def augmentation(self) -> Augmentation:
        """A piece of most of it, each channel larger or smaller, with noise, some channels missing; pieces are shorter."""
        change = {"kind": "gain"}, {"kind": "noise", "deviation": 0.1}, {"kind": "drop_channels"}
        return Augmentation(
            ({"kind": "crop", "share": (0.7, 1.0)}, *change), ({"kind": "crop", "share": (0.2, 0.5)}, *change)
        )

    @classmethod
    def suggest(cls, name: str, raws: Sequence[Any], items: int) -> Suggestion | None:
        """Patches that make about 32 tokens of an item; hidden ones are rebuilt from the visible."""
        lengths = [len(series(raw)) for raw in raws]
        if not lengths:
            return None
        middle = int(np.median(lengths))
        patch = int(np.clip(middle // TOKENS, 2, 64))
        tower = {"inputs": [name], "position": "rotary"}
        return Suggestion(
            stream={"kind": "series", "tokenizer": {"kind": "series_patch", "patch": patch}},
            trunks={"enc": {**tower, "class_token": True}, "dec": {**tower, "inputs": ["enc"]}},
            objective={"kind": "mae", "ratio": 0.4},
            train={"batch": 64},
            tokens=middle / patch,
            why=[
                f"{name}: patches of {patch} time steps, {-(-middle // patch)} tokens for {middle} steps",
                f"{name}: hidden patches are rebuilt from the visible ones, which needs no labels",
            ],
            tower={**tower, "block": {"dropout": 0.1}},
        )
