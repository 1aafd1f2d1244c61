"""A picture turned, scaled, slanted and moved by small random amounts, read between pixels by linear interpolation.

    y(p) = x(A (p - c) + c + t),   A = turn(a) slant(s) / scale(z);   0 outside

Simard 2003, doi:10.1109/ICDAR.2003.1227801 section 2: what makes small sets of handwriting larger.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.data.view import View
from sevenfold.data.view._items import PICTURES, like, pixels_of


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

    modalities = PICTURES

    def __call__(self, raw: Any, generator: np.random.Generator) -> Any:
        pixels, config = pixels_of(self, raw), self.config
        turn, grow, lean, down, across = generator.uniform(-1, 1, 5).tolist()
        angle, lean, size = math.radians(turn * config.degrees), lean * config.slant, 1 + grow * config.scale
        cos, sin = math.cos(angle), math.sin(angle)
        matrix = (cos - sin * lean) / size, -sin / size, (sin + cos * lean) / size, cos / size
        return like(raw, mapped(pixels, matrix, (down * config.pixels, across * config.pixels)))


def mapped(pixels: np.ndarray, matrix: tuple[float, float, float, float], shift: tuple[float, float]) -> np.ndarray:
    """y(p) = x(A (p - c) + c + t) [H W C] for A = (a, b, c, d) by rows, c the middle: between pixels interpolated, 0 outside."""
    (height, width, channels), (a, b, c, d) = pixels.shape, matrix
    y, x = (height - 1) / 2, (width - 1) / 2
    down, across = np.arange(height)[:, None] - y, np.arange(width) - x
    row = (a * down + (y + shift[0])) + b * across
    column = (c * down + (x + shift[1])) + d * across
    inside = (row >= 0) & (row <= height - 1) & (column >= 0) & (column <= width - 1)
    row *= inside
    column *= inside
    top, left = row.astype(np.intp), column.astype(np.intp)
    row -= top
    column -= left
    framed = np.zeros(
        (height + 1, width + 1, channels), np.float64
    )  # one more, of weight 0, beyond the last row and column
    framed[:-1, :-1] = pixels
    flat = framed.reshape(-1) if channels == 1 else framed.reshape(-1, channels)
    if channels > 1:
        row, column, inside = row[..., None], column[..., None], inside[..., None]
    top *= width + 1
    top += left
    upper = flat.take(top, 0)
    upper += (flat.take(top + 1, 0) - upper) * column
    top += width + 1
    lower = flat.take(top, 0)
    lower += (flat.take(top + 1, 0) - lower) * column
    lower -= upper
    lower *= row
    upper += lower
    upper *= inside
    return upper.reshape(pixels.shape)
