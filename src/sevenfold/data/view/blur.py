"""A picture blurred by a Gaussian of random width.

    y = G x G',   G_ij ~ exp(-(i - j)^2 / 2 sigma^2) for |i - j| <= 3 sigma, rows of sum 1;   sigma ~ U(low, high), with probability p

SimCLR, arXiv:2002.05709 appendix A, which takes sigma in 0.1 ... 2 pixels, half of the time. Beyond the edge there is nothing:
what is inside weighs more there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.data.view import View
from sevenfold.data.view._items import PICTURES, like, pixels_of
from sevenfold.data.view._ranges import Range


class Blur(View):
    """array [H W C] → array of the same shape and type."""

    class Config(View.Config):
        sigma: Range = (0.1, 2.0)
        """The least and the largest sigma, in pixels."""
        probability: float = Field(0.5, ge=0, le=1)
        """p, how often it is blurred at all."""

    modalities = PICTURES

    def __call__(self, raw: Any, generator: np.random.Generator) -> Any:
        pixels = pixels_of(self, raw)
        sigma, chance = float(generator.uniform(*self.config.sigma)), float(generator.random())
        if chance >= self.config.probability:
            return raw
        height, width, channels = pixels.shape
        flat = pixels.reshape(height, -1).astype(np.float32)
        down = (gaussian(height, sigma) @ flat).reshape(height, width, channels)
        return like(raw, np.matmul(gaussian(width, sigma), down))


def gaussian(size: int, sigma: float) -> np.ndarray:
    """G [size size] float32."""
    away = np.abs(np.arange(size)[:, None] - np.arange(size))
    found = np.exp(-0.5 * (away / sigma) ** 2) * (away <= round(3 * sigma))
    return (found / found.sum(1, keepdims=True)).astype(np.float32)
