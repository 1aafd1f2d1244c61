"""A series as ids: each value, divided by the mean size of the item, falls into one of equally wide bins.

    s = mean |x_t|  (1 if that is 0);   id_t = 3 + argmin_j |x_t / s - c_j|,   c = linspace(-L, L, B)

A missing value makes no token: the coordinates of the others show the gap. With `octaves`, the item's first token says
the power of two nearest to s, and that power is divided by instead, so decoding gives the scale back; without, decoding
gives x / s, and ids are Chronos's own (pad 0, eos 1, mask 2, which Chronos never gives, bins from 3).

Ansari 2024 (Chronos), arXiv:2403.07815 section 3.1: L 15, 4096 ids, no octaves. A value on the edge between two bins goes
to the upper one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization._series import series, waves
from sevenfold.core.types import Tokens

FIRST = 3
"""The id of the lowest bin."""
OCTAVES = 201
"""Powers of two from -100 to 100."""


class SeriesBin(Tokenizer):
    """array [T] or [T 1] → ids [n], coords [n 1] (time; with octaves from 1 on, and the scale at 0); decodes to [T'] float32."""

    class Config(Tokenizer.Config):
        ids: int = Field(4096, ge=5, le=1 << 20)
        """Ids in all but octaves: three special ones and B = ids - 3 bins."""
        limit: float = Field(15.0, gt=0)
        """L, the size of the outermost centres."""
        octaves: bool = True
        """Whether the scale is a token in front; 201 ids more."""

    lossless = False
    variants = ({"ids": 64, "limit": 4.0},)

    def __init__(self, config: Any):
        super().__init__(config)
        self.specials = {"pad": 0, "eos": 1, "mask": 2}
        self.size = config.ids + (OCTAVES if config.octaves else 0)

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[np.ndarray]:
        return waves(seed)

    @cached_property
    def centres(self) -> np.ndarray:
        """c, [B] float64."""
        return np.linspace(-self.config.limit, self.config.limit, self.config.ids - FIRST)

    @cached_property
    def _edges(self) -> np.ndarray:
        """Between the bins, with one at each end, [B + 1]."""
        return np.concatenate([[-np.inf], (self.centres[1:] + self.centres[:-1]) / 2, [np.inf]])

    def encode(self, raw: Any) -> Tokens:
        values = series(raw)
        if values.shape[1] != 1:
            raise ValueError(
                f"the series has {values.shape[1]} channels, and series_bin takes one: choose a column, or series_patch"
            )
        flat = values[:, 0].astype(np.float64)
        known = np.isfinite(flat)
        whole = bool(known.all())
        kept = flat if whole else flat[known]
        scale = float(np.abs(kept).mean())
        if not scale > 0:
            scale = 1.0
        octave = int(np.clip(np.rint(np.log2(scale)), -(OCTAVES // 2), OCTAVES // 2))
        ids = self._bins(kept / (2.0**octave if self.config.octaves else scale)) + FIRST
        times = np.arange(len(flat)) if whole else np.flatnonzero(known)
        if self.config.octaves:
            ids = np.concatenate([[self.config.ids + octave + OCTAVES // 2], ids])
            times = np.concatenate([[0], times + 1])
        return Tokens(ids, times[:, None].astype(np.int64))

    def _bins(self, values: np.ndarray) -> np.ndarray:
        """The bin of each value: by arithmetic, which rounding may put one beside, then held against the edges."""
        count, limit, edges = len(self.centres), self.config.limit, self._edges
        bins = np.rint((np.clip(values, -limit, limit) + limit) * ((count - 1) / (2 * limit))).astype(np.int64)
        bins += values >= edges[bins + 1]
        bins -= values < edges[bins]
        return bins

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> np.ndarray:
        """The middles of the bins, times the power of two if there is one; NaN at times between that no token names."""
        ids = np.asarray(values).reshape(-1)
        scales = ids[ids >= self.config.ids]
        scale = 2.0 ** int(scales[0] - self.config.ids - OCTAVES // 2) if len(scales) else 1.0
        kept = (ids >= FIRST) & (ids < self.config.ids)
        found = (self.centres[ids[kept] - FIRST] * scale).astype(np.float32)
        if coords is None or not len(found):
            return found
        times = np.rint(np.asarray(coords)[kept, 0]).astype(np.int64) - int(self.config.octaves)
        out = np.full(int(times.max()) + 1, np.nan, np.float32)
        out[times] = found
        return out

    def spans(self, raw: Any) -> np.ndarray:
        times = self.encode(raw).coords[:, 0] - int(self.config.octaves)
        return np.stack([np.maximum(times, 0), times + 1], axis=1)

    def piece(self, id: int) -> str:
        if FIRST <= id < self.config.ids:
            return f"{self.centres[id - FIRST]:.3g}"
        if id >= self.config.ids:
            return f"x2^{id - self.config.ids - OCTAVES // 2}"
        return super().piece(id)
