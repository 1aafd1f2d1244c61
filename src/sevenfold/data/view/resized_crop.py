"""A rectangle of a picture, brought to a size: that of the picture, or a smaller one for local crops.

    area = s H W,  s ~ U(scale);   width / height = r,  log r ~ U(log ratio);   anywhere inside;   resized linearly

Szegedy 2014, arXiv:1409.4842 section 6; global and local crops: DINO, arXiv:2104.14294 section 3.1. A side that would be
longer than the picture's is cut to it. Resizing is Pillow's BILINEAR: the filter is widened where a picture shrinks.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Self

import numpy as np
from pydantic import model_validator

from sevenfold.data.view import View
from sevenfold.data.view._items import PICTURES, like, pixels_of
from sevenfold.data.view._ranges import Range, Shares


class ResizedCrop(View):
    """array [H W C] → array [height width C] of the same type."""

    class Config(View.Config):
        scale: Shares = (0.4, 1.0)
        """The least and the largest share s of the area."""
        ratio: Range = (0.75, 1.333)
        """The least and the largest width / height r of the rectangle."""
        size: tuple[int, int] | None = None
        """Height and width that come out, in pixels; by default those of the picture."""

        @model_validator(mode="after")
        def _size(self) -> Self:
            if self.size is not None and not 1 <= min(self.size) <= max(self.size) <= 4096:
                raise ValueError(f"size: {list(self.size)} is no height and width in 1...4096 pixels")
            return self

    modalities = PICTURES

    def __call__(self, raw: Any, generator: np.random.Generator) -> Any:
        pixels, config = pixels_of(self, raw), self.config
        height, width, _ = pixels.shape
        area = generator.uniform(*config.scale) * height * width
        ratio = math.exp(generator.uniform(math.log(config.ratio[0]), math.log(config.ratio[1])))
        rows = min(height, max(1, round(math.sqrt(area / ratio))))
        columns = min(width, max(1, round(math.sqrt(area * ratio))))
        top = int(generator.integers(0, height - rows, endpoint=True))
        left = int(generator.integers(0, width - columns, endpoint=True))
        size = (height, width) if config.size is None else config.size
        return like(raw, resized(pixels[top : top + rows, left : left + columns], *size))


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """[h w C] → [height width C] float32, linearly."""
    rows, columns, channels = pixels.shape
    flat = pixels.reshape(rows, -1).astype(np.float32)
    tall = (weights(rows, height) @ flat).reshape(height, columns, channels)
    return np.matmul(weights(columns, width), tall)


@lru_cache(maxsize=256)
def weights(given: int, wanted: int) -> np.ndarray:
    """[wanted given] float32: how much each place of a line has of each place of another one, triangles about their middles."""
    step = given / wanted
    away = (np.arange(given) + 0.5) - ((np.arange(wanted) + 0.5) * step)[:, None]
    found = np.maximum(1 - np.abs(away) / max(step, 1.0), 0)
    return (found / found.sum(1, keepdims=True)).astype(np.float32)
