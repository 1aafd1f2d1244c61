"""White noise on every number, as a share of how much its channel varies in the item.

    y_tc = x_tc + d std(x_:c) e_tc,   e ~ N(0, 1)

For pictures, micrographs, series and sound: what does not vary stays as it is, and what is missing stays missing. "Jittering" in
Um 2017, doi:10.1145/3136755.3136817, section 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.cell import Micrograph
from sevenfold.data.view import View
from sevenfold.data.view._items import array_of, like


class Noise(View):
    """array [… C] or [T] → array of the same shape and type."""

    class Config(View.Config):
        deviation: float = Field(0.1, ge=0, le=10)
        """d, the standard deviation of the noise, in standard deviations of the channel."""

    modalities = ("image", "microscopy", "series", "audio")

    def __call__(self, raw: Any, generator: np.random.Generator) -> Any:
        values = array_of(self, raw.pixels if isinstance(raw, Micrograph) else raw, "pictures, series and sounds")
        flat = values.astype(np.float32).reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
        known = np.isfinite(flat)
        spread = flat.std(0) if known.all() else _spread(flat, known)
        drawn = generator.standard_normal(flat.shape, np.float32)
        return like(raw, (flat + drawn * (spread * np.float32(self.config.deviation))).reshape(values.shape))


def _spread(flat: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Standard deviations of the known numbers of each column, 0 where there are none."""
    count = np.maximum(known.sum(0), 1)
    away = np.where(known, flat - np.where(known, flat, 0).sum(0) / count, 0)
    return np.sqrt(np.square(away).sum(0) / count)
