"""A picture moved by a few whole pixels.

    y[r, c] = x[r - a, c - b], 0 outside;  a, b ~ U{-k ... k}

LeCun et al. 1998, doi:10.1109/5.726791 sec. III. Keeps digits and textures what they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.data.view import View
from sevenfold.data.view._items import PICTURES, like, pixels_of


class Shift(View):
    """array [H W C] → array of the same shape and type."""

    class Config(View.Config):
        pixels: int = Field(1, ge=1, le=4096)
        """k, the most pixels in each direction."""

    modalities = PICTURES

    def __call__(self, raw: Any, generator: np.random.Generator) -> Any:
        pixels = pixels_of(self, raw)
        down, across = generator.integers(-self.config.pixels, self.config.pixels, 2, endpoint=True).tolist()
        moved = np.zeros_like(pixels)
        moved[_part(down), _part(across)] = pixels[_part(-down), _part(-across)]
        return like(raw, moved)


def _part(by: int) -> slice:
    """The part of an axis that something lands on when it moves by so many places."""
    return slice(by, None) if by >= 0 else slice(None, by)
