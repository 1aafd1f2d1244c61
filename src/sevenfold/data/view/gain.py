"""Each channel louder or quieter as a whole.

    y_tc = f_c x_tc,   log f_c ~ U(log low, log high)

For series, sound and micrographs, where units and exposure say little. "Scaling" in Um 2017, doi:10.1145/3136755.3136817,
section 3; "gain" of a sound.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sevenfold.core.cell import Micrograph
from sevenfold.data.view import View
from sevenfold.data.view._items import array_of, factor, like
from sevenfold.data.view._ranges import Range


class Gain(View):
    """array [… C] or [T] → array of the same shape and type."""

    class Config(View.Config):
        factor: Range = (0.7, 1.4)
        """The least and the largest f."""

    modalities = ("series", "audio", "microscopy")

    def __call__(self, raw: Any, generator: np.random.Generator) -> Any:
        values = array_of(self, raw.pixels if isinstance(raw, Micrograph) else raw, "series, sounds and micrographs")
        low, high = self.config.factor
        by = factor(generator, low, high, values.shape[-1] if values.ndim > 1 else 1)
        return like(raw, values * by.astype(np.float32))
