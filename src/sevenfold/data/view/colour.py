"""Brightness, contrast and saturation changed by random factors, and now and then all colour taken out.

    brightness  y = b x      contrast  y = c x + (1 - c) mean grey      saturation  y = s x + (1 - s) grey      one after the other
    b, c, s ~ U(1 - amount, 1 + amount);   grey = .299 R + .587 G + .114 B, with probability p instead of y

Howard 2013, arXiv:1312.5402 section 3; SimCLR, arXiv:2002.05709 appendix A, which changes the hue too. Grey pictures have
brightness and contrast only; the fourth channel of transparent ones stays as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.data.view import View
from sevenfold.data.view._items import like, pixels_of

GREY = np.array([0.299, 0.587, 0.114], np.float32)


class Colour(View):
    """array [H W C] → array of the same shape and type."""

    class Config(View.Config):
        brightness: float = Field(0.4, ge=0, le=1)
        """The most that b differs from 1."""
        contrast: float = Field(0.4, ge=0, le=1)
        """The most that c differs from 1."""
        saturation: float = Field(0.4, ge=0, le=1)
        """The most that s differs from 1."""
        grey: float = Field(0.1, ge=0, le=1)
        """p, how often all colour is taken out."""

    modalities = ("image",)

    def __call__(self, raw: Any, generator: np.random.Generator) -> np.ndarray:
        pixels, config = pixels_of(self, raw), self.config
        bright, strong, vivid = (
            1 + generator.uniform(-1, 1, 3) * (config.brightness, config.contrast, config.saturation)
        ).tolist()
        plain = generator.random() < config.grey
        coloured = pixels.shape[2] in (3, 4)
        top = 255.0 if pixels.dtype == np.uint8 else 1.0
        x = np.minimum(pixels[..., : 3 if coloured else None].astype(np.float32) * np.float32(bright), top)
        mean = float((x @ GREY).mean() if coloured else x.mean())
        x = np.clip(x * np.float32(strong) + np.float32((1 - strong) * mean), 0, top)
        if coloured:
            grey = (x @ GREY)[..., None]
            x = (
                np.broadcast_to(grey, x.shape)
                if plain
                else np.clip(x * np.float32(vivid) + np.float32(1 - vivid) * grey, 0, top)
            )
        changed = pixels.astype(np.float32)
        changed[..., : x.shape[2]] = x
        return like(raw, changed)
