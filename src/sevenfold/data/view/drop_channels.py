"""Some channels of a series are missing.

    y_:c = missing (NaN) with probability p, otherwise x_:c;   at least one channel in which something is known stays

Sensors that fail: channel dropout for recordings of electrodes, Saeed 2021,
arXiv:2007.04871. A series of one channel stays as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.data.view import View
from sevenfold.data.view._items import array_of


class DropChannels(View):
    """array [T C] → array of the same shape, NaN where a channel is missing; [T] → itself."""

    class Config(View.Config):
        rate: float = Field(0.2, ge=0, lt=1)
        """p, the share of channels that are missing."""

    modalities = ("series", "actions")

    def __call__(self, raw: Any, generator: np.random.Generator) -> np.ndarray:
        values = array_of(self, raw, "series")
        if values.ndim != 2 or values.shape[1] == 1:
            return raw
        gone = generator.random(values.shape[1]) < self.config.rate
        known = np.isfinite(values).any(0)
        if not (known & ~gone).any():
            gone[generator.permutation(np.flatnonzero(known))[:1]] = False
        dropped = values.astype(values.dtype if values.dtype.kind == "f" else np.float32)
        dropped[:, gone] = np.nan
        return dropped
