"""A picture mirrored left to right, or top to bottom.

    y[r, c] = x[r, W - 1 - c] with probability p;   y[r, c] = x[H - 1 - r, c] with probability q

Krizhevsky 2012, doi:10.1145/3065386 section 4.1. For photographs (left to right) and micrographs (both); not for what can be
read, such as digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.data.view import View
from sevenfold.data.view._items import PICTURES, like, pixels_of


class Flip(View):
    """array [H W C] → array of the same shape and type."""

    class Config(View.Config):
        horizontal: float = Field(0.5, ge=0, le=1)
        """p, how often left and right change places."""
        vertical: float = Field(0.0, ge=0, le=1)
        """q, how often top and bottom do."""

    modalities = PICTURES

    def __call__(self, raw: Any, generator: np.random.Generator) -> Any:
        pixels = pixels_of(self, raw)
        across, down = (generator.random(2) < (self.config.horizontal, self.config.vertical)).tolist()
        if not (across or down):
            return raw
        return like(raw, pixels[:: -1 if down else 1, :: -1 if across else 1].copy())
