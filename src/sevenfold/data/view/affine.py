"""A picture turned, scaled, slanted and moved by small random amounts, read between pixels by linear interpolation.

    y(p) = x(A (p - c) + c + t),   A = turn(a) slant(s) / scale(z);   0 outside

Simard 2003, doi:10.1109/ICDAR.2003.1227801 section 2: what makes small sets of handwriting larger.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.errors import ConfigError
from sevenfold.data.view import View


class Affine(View):
    """array [H W C] → array of the same shape and type."""

    class Config(View.Config):
        degrees: float = Field(default=10.0, ge=0, le=180)
        """The most it is turned, either way."""
        scale: float = Field(default=0.1, ge=0, lt=1)
        """The most it grows or shrinks, as a share."""
        slant: float = Field(default=0.1, ge=0, lt=1)
        """The most columns lean, in pixels a row."""
        pixels: float = Field(default=0.5, ge=0, le=4096)
        """The most it is moved in each direction, in pixels."""

    def __call__(self, raw: Any, generator: np.random.Generator) -> np.ndarray:
        from scipy.ndimage import affine_transform

        if not isinstance(raw, np.ndarray) or raw.ndim != 3:
            raise ConfigError(f"the affine view changes pictures, not {type(raw).__name__}: take it out of views")
        config, (turn, grow, lean, down, across) = self.config, generator.uniform(-1, 1, 5)
        angle, lean = np.deg2rad(turn * config.degrees), lean * config.slant
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = rotation @ np.array([[1, 0], [lean, 1]]) / (1 + grow * config.scale)
        center = (np.array(raw.shape[:2]) - 1) / 2
        offset = center - matrix @ center + np.array([down, across]) * config.pixels
        planes = [
            affine_transform(raw[..., c].astype(np.float32), matrix, offset, order=1) for c in range(raw.shape[2])
        ]
        moved = np.stack(planes, axis=-1)
        return np.rint(moved).astype(raw.dtype) if np.issubdtype(raw.dtype, np.integer) else moved.astype(raw.dtype)
