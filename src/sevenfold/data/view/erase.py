"""A random rectangle of a picture is painted over.

    y[r, c] = v inside, x[r, c] outside;   area = s H W, s ~ U(scale), height / width log-uniform in ratio;   with probability p

Zhong 2017 (random erasing), arXiv:1708.04896 algorithm 1; DeVries 2017 (Cutout), arXiv:1708.04552. By default v is 0, what is
dark; a rectangle that would not fit is cut to the picture.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.data.view import View
from sevenfold.data.view._items import PICTURES, like, pixels_of
from sevenfold.data.view._ranges import Range, Shares


class Erase(View):
    """array [H W C] → array of the same shape and type."""

    class Config(View.Config):
        scale: Shares = (0.02, 0.2)
        """The least and the largest share s of the area."""
        ratio: Range = (0.33, 3.0)
        """The least and the largest height / width."""
        value: float = Field(0.0, ge=0, le=1)
        """v, between the darkest (0) and the brightest pixel of the picture (1)."""
        probability: float = Field(0.5, ge=0, le=1)
        """p, how often something is painted over at all."""

    modalities = PICTURES

    def __call__(self, raw: Any, generator: np.random.Generator) -> Any:
        pixels, config = pixels_of(self, raw), self.config
        area = generator.uniform(*config.scale) * pixels.shape[0] * pixels.shape[1]
        ratio = math.exp(generator.uniform(math.log(config.ratio[0]), math.log(config.ratio[1])))
        rows = min(pixels.shape[0], max(1, round(math.sqrt(area * ratio))))
        columns = min(pixels.shape[1], max(1, round(math.sqrt(area / ratio))))
        top = int(generator.integers(0, pixels.shape[0] - rows, endpoint=True))
        left = int(generator.integers(0, pixels.shape[1] - columns, endpoint=True))
        if generator.random() >= config.probability:
            return raw
        painted = pixels.astype(np.float64)
        low, high = float(painted.min()), float(painted.max())
        painted[top : top + rows, left : left + columns] = low + config.value * (high - low)
        return like(raw, painted)
