"""One size for pictures: brought to it whole or by their shorter side, and cut out of (or padded around) their middle.

    [H W C] -> scale -> [h w C] -> middle -> [height width C]

As published models of pictures say in `preprocessor_config.json`: bytes become the bytes that their processors make with
Pillow, whose filters these are (when a picture shrinks, a filter is widened by as much). Nothing here is random: what is
random is a view.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import numpy as np
from PIL import Image as Pillow
from pydantic import Field, model_validator

from sevenfold.core import part

LARGEST = 1 << 26
"""The most pixels that a picture is brought to."""
SIDE = 1 << 14
"""The longest side that settings may ask for."""
FILTERS = {
    "nearest": Pillow.Resampling.NEAREST,
    "lanczos": Pillow.Resampling.LANCZOS,
    "bilinear": Pillow.Resampling.BILINEAR,
    "bicubic": Pillow.Resampling.BICUBIC,
    "box": Pillow.Resampling.BOX,
    "hamming": Pillow.Resampling.HAMMING,
}
"""Our names of Pillow's filters, which published files number."""


class Resize(part.Config):
    """How pictures get one size."""

    shorter: int | None = Field(None, ge=1, le=SIDE)
    """Pixels of the shorter side; the longer one keeps the proportions."""
    longest: int | None = Field(None, ge=1, le=SIDE)
    """With shorter: the most pixels of the longer side; a longer one shrinks both."""
    multiple: int = Field(1, ge=1, le=SIDE)
    """With shorter: both sides are cut down to a multiple of this (of a patch), so that pictures keep about their proportions."""
    size: tuple[int, int] | None = None
    """Height and width, whatever the proportions were; instead of shorter."""
    crop: tuple[int, int] | None = None
    """Height and width that are cut out of the middle after that; a side that is too short gets black borders."""
    filter: Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"] = "bicubic"
    """What pixels are computed by."""
    colours: bool = False
    """Whether grey pictures get three equal channels, and transparent ones a white ground."""

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.shorter is not None and self.size is not None:
            raise ValueError("give shorter or size, not both")
        if self.shorter is None and (self.longest is not None or self.multiple > 1):
            raise ValueError("longest and multiple go with shorter: give shorter, or leave them out")
        if self.shorter is not None and not self.multiple <= self.shorter <= (self.longest or self.shorter):
            raise ValueError(
                f"shorter is from multiple ({self.multiple}) to longest ({self.longest}), not {self.shorter}"
            )
        for sides in (self.size, self.crop):
            if sides is not None and not all(1 <= side <= SIDE for side in sides):
                raise ValueError(f"a height and a width of 1 to {SIDE}, not {list(sides)}")
        return self

    @property
    def gives(self) -> tuple[int, int] | None:
        """Height and width of every picture; None where they depend on the picture."""
        return self.crop or self.size


def resized(pixels: np.ndarray, config: Resize) -> np.ndarray:
    """A picture [H W C], uint8 or float32 in 0…1, of the size that the settings say; ValueError, one line, if that is
    absurd."""
    if config.colours:
        pixels = coloured(pixels)
    height, width = scaled = _scaled(pixels.shape[:2], config)
    if height * width > LARGEST:
        raise ValueError(
            f"a picture of {pixels.shape[0]} by {pixels.shape[1]} pixels would become {height} by {width}: crop it first"
        )
    if scaled != pixels.shape[:2]:
        pixels = _filtered(pixels, scaled, FILTERS[config.filter])
    for axis, side in enumerate(config.crop or ()):
        pixels = _middle(pixels, axis, side)
    return pixels


def coloured(pixels: np.ndarray) -> np.ndarray:
    """A picture of 1, 3 or 4 channels with 3: grey three times, transparency over white."""
    channels = pixels.shape[2]
    if channels == 1:
        return pixels.repeat(3, axis=2)
    if channels == 4 and pixels.dtype == np.uint8:
        picture = Pillow.fromarray(np.ascontiguousarray(pixels))
        white = Pillow.new("RGBA", picture.size, (255, 255, 255, 255))
        return np.asarray(Pillow.alpha_composite(white, picture).convert("RGB"))
    if channels == 4:
        return pixels[:, :, :3] * pixels[:, :, 3:] + (1 - pixels[:, :, 3:])
    return pixels


def _scaled(shape: Any, config: Resize) -> tuple[int, int]:
    """Height and width before the middle is cut out."""
    height, width = shape
    if config.size is not None:
        return config.size
    if config.shorter is None:
        return height, width
    short, long = sorted((height, width))
    if config.longest is not None or config.multiple > 1:
        return _multiples(height, width, config)
    longer = int(config.shorter * long / short)
    return (longer, config.shorter) if width <= height else (config.shorter, longer)


def _multiples(height: int, width: int, config: Resize) -> tuple[int, int]:
    """The shorter side as asked for, the longer one not too long, both rounded and then cut to multiples (at least one)."""
    assert config.shorter is not None
    scale = config.shorter / min(height, width)
    sides: tuple[float, float] = (config.shorter, scale * width) if height < width else (scale * height, config.shorter)
    if config.longest is not None and max(sides) > config.longest:
        less = config.longest / max(sides)
        sides = (less * sides[0], less * sides[1])
    first, second = (max(1, int(side + 0.5) // config.multiple) * config.multiple for side in sides)
    return first, second


def _filtered(pixels: np.ndarray, size: tuple[int, int], filter: Pillow.Resampling) -> np.ndarray:
    """Resampled by Pillow: bytes of 1, 3 or 4 channels as a whole, all else channel by channel."""
    wanted = (size[1], size[0])
    if pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3, 4):
        plain = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
        made = np.asarray(Pillow.fromarray(np.ascontiguousarray(plain)).resize(wanted, filter))
        return made.reshape(*size, -1)
    planes = [Pillow.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(pixels, 2, 0)]
    made = np.stack([np.asarray(plane.resize(wanted, filter)) for plane in planes], axis=2)
    return made if pixels.dtype == np.uint8 else made.clip(0, 1)  # cubic curves go beyond what they pass through


def _middle(pixels: np.ndarray, axis: int, side: int) -> np.ndarray:
    """`side` rows (or columns) out of the middle, with black ones around where there are fewer."""
    found, start = pixels.shape[axis], (pixels.shape[axis] - side) // 2
    if found < side:
        before = math.ceil((side - found) / 2)
        around = [(0, 0)] * pixels.ndim
        around[axis] = (before, side - found - before)
        return np.pad(pixels, around)
    return pixels.take(range(start, start + side), axis)
