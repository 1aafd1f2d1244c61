"""A sound played faster and higher, or slower and lower.

    y_t = x(f t),   log f ~ U(log low, log high)          between samples in a straight line

As a tape at another speed, so that a voice becomes another one. Ko 2015, doi:10.21437/Interspeech.2015-711, section 2 (0.9, 1, 1.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sevenfold.data.view import View
from sevenfold.data.view._items import array_of, factor, typed
from sevenfold.data.view._ranges import Range


class Speed(View):
    """array [T] → array [T / f] of the same type."""

    class Config(View.Config):
        factor: Range = (0.9, 1.1)
        """The least and the largest f; above 1 it is faster."""

    modalities = ("audio",)

    def __call__(self, raw: Any, generator: np.random.Generator) -> np.ndarray:
        samples = array_of(self, raw, "sounds")
        by = float(factor(generator, *self.config.factor))
        places = np.arange(max(1, round(len(samples) / by))) * by
        return typed(samples, np.interp(places, np.arange(len(samples)), samples))
