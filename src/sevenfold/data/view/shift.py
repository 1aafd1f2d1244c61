"""A picture moved by a few whole pixels.

    y[r, c] = x[r - a, c - b], 0 outside;  a, b ~ U{-k ... k}

LeCun et al. 1998, doi:10.1109/5.726791 sec. III. Keeps digits and textures what they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.errors import ConfigError
from sevenfold.data.view import View


class Shift(View):
    """array [H W C] → array of the same shape and type."""

    class Config(View.Config):
        pixels: int = Field(1, ge=1, le=4096)
        """k, the most pixels in each direction."""

    def __call__(self, raw: Any, generator: np.random.Generator) -> np.ndarray:
        if not isinstance(raw, np.ndarray) or raw.ndim != 3:
            raise ConfigError(f"the shift view changes pictures, not {type(raw).__name__}: take it out of views")
        down, across = generator.integers(-self.config.pixels, self.config.pixels, 2, endpoint=True).tolist()
        moved = np.zeros_like(raw)
        moved[_part(down), _part(across)] = raw[_part(-down), _part(-across)]
        return moved


def _part(by: int) -> slice:
    """The part of an axis that something lands on when it moves by so many places."""
    return slice(by, None) if by >= 0 else slice(None, by)
