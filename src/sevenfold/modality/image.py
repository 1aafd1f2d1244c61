"""Pictures: an array [height width channels] becomes patches along two axes.

By default vectors (`patch`, as in ViT, MAE and CLIP); `quantized_patch` and `binary_patch` give ids.
"""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image as Pillow

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization._picture import picture
from sevenfold.core import part
from sevenfold.modality import Augmentation, Modality, Suggestion
from sevenfold.modality._features import Features, picture_features
from sevenfold.modality._resize import Resize, resized
from sevenfold.modality._strings import spread

MODES = {"1": "L", "L": "L", "LA": "RGBA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "RGB"}
"""Pillow's modes that are taken, and what they become."""
TOKENS = 64
"""About how many tokens a picture is cut into, where nobody says."""
SHADES = " ░▒▓█"
WIDEST = 64
"""Pixels of the longer side of a picture in a terminal."""
SHOWN = 128
"""Pixels of the longer side at which a small picture is shown."""


class Image(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("patch")
        """How raw items become tokens."""
        resize: Resize | None = None
        """The size that every picture is brought to, after its views; by default it keeps its own."""

    axes = ("row", "column")

    def check(self, raw: Any) -> np.ndarray:
        """[H W C] uint8, or float32 in 0…1, from such an array, one without C, or a Pillow picture."""
        if isinstance(raw, Pillow.Image):
            if raw.mode not in MODES:
                raise ValueError(f"a picture of mode {raw.mode} cannot be used: convert it to L or RGB")
            seen_through = raw.has_transparency_data and self.config.resize is not None and self.config.resize.colours
            raw = np.asarray(raw.convert("RGBA" if seen_through else MODES[raw.mode]))
        return picture(raw)

    def augmentation(self) -> Augmentation:
        """Moved, turned and scaled a little, coloured ones in other light; pieces are about half as high and wide."""
        whole = [{"kind": "affine", "degrees": 15, "scale": 0.15, "slant": 0.15, "pixels": 2}]
        if getattr(self.tokenizer, "channels", None) in (3, 4):
            whole.append({"kind": "colour"})
        cells, patch = getattr(self.tokenizer, "cells", None), getattr(self.tokenizer.config, "patch", 1)
        size = (
            [patch * max(1, round(0.45 * count)) for count in cells] if cells and self.config.resize is None else None
        )
        return Augmentation(tuple(whole), ({"kind": "resized_crop", "scale": (0.15, 0.4), "size": size}, *whole))

    def within(self, raw: Any) -> np.ndarray:
        """Floats in 0…1."""
        return raw.clip(0, 1) if raw.dtype.kind == "f" else raw

    def prepared(self, raw: Any) -> np.ndarray:
        """The picture in the size that `resize` says."""
        return raw if self.config.resize is None else resized(raw, self.config.resize)

    def summary(self, raws: Sequence[Any]) -> dict[str, Any]:
        if not raws:
            return {"items": 0}
        images = [self.check(raw) for raw in raws]
        channels = Counter(image.shape[2] for image in images)
        return {
            "items": len(images),
            "height, least / median / most": spread([image.shape[0] for image in images]),
            "width, least / median / most": spread([image.shape[1] for image in images]),
            "channels": ", ".join(f"{count} in {times}" for count, times in sorted(channels.items())),
            "mean brightness in 0…1": round(float(np.mean([_bytes(image).mean() / 255 for image in images])), 3),
        }

    def html(self, raw: Any) -> str:
        """The picture inline as PNG, small ones enlarged with their pixels visible; floats are cut off at 0 and 1."""
        height, width, _ = self._pixels(raw).shape
        data = base64.b64encode(self.file(raw)[1]).decode("ascii")
        scale = max(1, SHOWN // max(height, width))
        return (
            f'<img src="data:image/png;base64,{data}" width="{width * scale}" height="{height * scale}" '
            f'style="image-rendering:pixelated" alt="picture of {height} by {width} pixels">'
        )

    def edits(self, raw: Any, draw: np.random.Generator) -> dict[str, np.ndarray]:
        """The picture moved by one pixel (its edge repeated), and one pixel made light if dark, dark if light."""
        pixels = self.check(raw)
        row, column = (int(draw.integers(side)) for side in pixels.shape[:2])
        one, most = pixels.copy(), 255 if pixels.dtype == np.uint8 else 1
        one[row, column] = np.where(one[row, column] * 2 < most, most, 0)
        moved = {
            "moved one pixel to the right": np.concatenate([pixels[:, :1], pixels[:, :-1]], axis=1),
            "moved one pixel down": np.concatenate([pixels[:1], pixels[:-1]], axis=0),
        }
        return {**moved, "one pixel inverted": one}

    def features(self, train: Sequence[Any]) -> tuple[Features, ...]:
        """Pixels."""
        return picture_features(train)

    def content(self, raw: Any) -> bytes:
        """One byte a pixel and channel, by row, column, channel."""
        return _bytes(self.check(raw)).tobytes()

    def error(self, raw: Any, back: Any) -> float:
        """Root mean square of the difference in pixels of 0…1; pixels of 256 levels are compared as such."""
        pixels, back = self.check(raw), np.asarray(back)
        if pixels.shape != back.shape:
            pixels = self.prepared(pixels)
        if pixels.shape != back.shape:
            return 1.0
        if pixels.dtype == np.uint8:
            pixels, back = _bytes(pixels) / 255, _bytes(back) / 255
        return float(np.sqrt(np.mean((pixels.astype(np.float64) - back.astype(np.float64)) ** 2)))

    error_unit = "root mean square, pixels in 0…1"

    def _pixels(self, raw: Any) -> np.ndarray:
        """[H W C] uint8 of a picture that need not be well-behaved (a drawn one)."""
        pixels = raw[:, :, None] if isinstance(raw, np.ndarray) and raw.ndim == 2 else raw
        return _bytes(pixels if isinstance(pixels, np.ndarray) else self.check(pixels))

    def file(self, raw: Any) -> tuple[str, bytes]:
        """(".png", the picture)."""
        pixels, file = self._pixels(raw), io.BytesIO()
        Pillow.fromarray(pixels if pixels.shape[2] in (3, 4) else pixels[:, :, 0]).save(file, "png")
        return ".png", file.getvalue()

    def typed(self, text: str) -> np.ndarray:
        """The picture in the file of that name, with as many channels as the tokenizer takes."""
        try:
            with Pillow.open(text) as file:
                file.load()
                image = file.convert("L" if getattr(self.tokenizer, "channels", 3) == 1 else "RGB")
        except FileNotFoundError:
            raise ValueError(f"there is no file {text}") from None
        except Exception as error:  # decoders of damaged files raise anything
            raise ValueError(f"{text} is not a picture that can be read: {str(error).splitlines()[0]}") from None
        return self.check(image)

    def plain(self, raw: Any) -> str:
        """Grey levels as block characters, two to a pixel, at most 64 pixels wide."""
        pixels = self._pixels(raw)
        step = max(1, -(-max(pixels.shape[:2]) // WIDEST))
        levels = pixels[::step, ::step, :3].mean(2) * (len(SHADES) - 1) / 255
        return "\n".join("".join(SHADES[level] * 2 for level in row) for row in levels.round().astype(int))

    @classmethod
    def suggest(cls, name: str, raws: Sequence[Any], items: int) -> Suggestion | None:
        """Patches that make about 64 tokens of a picture; hidden ones are rebuilt from the visible."""
        shapes = [picture(raw).shape for raw in raws]
        if not shapes:
            return None
        common = math.gcd(*(side for height, width, _ in shapes for side in (height, width)))
        height, width, _ = max(shapes)
        fitting = [size for size in range(1, common + 1) if common % size == 0]
        patch = min(fitting, key=lambda size: abs(math.log(height * width / size**2 / TOKENS)))
        tokens = height * width / patch**2
        tower = {"inputs": [name], "position": {"kind": "learned", "size": max(8, -(-max(height, width) // patch))}}
        return Suggestion(
            stream={"kind": "image", "tokenizer": {"kind": "patch", "patch": patch}},
            trunks={"enc": {**tower, "class_token": True}, "dec": {**tower, "inputs": ["enc"]}},
            objective={"kind": "mae", "ratio": 0.75 if tokens >= 36 else 0.5},
            train={"batch": 64},
            tokens=tokens,
            why=[
                f"{name}: patches of {patch} x {patch} pixels, {tokens:.0f} tokens for a picture of {height} x {width}",
                f"{name}: hidden patches are rebuilt from the visible ones (masked autoencoding), which needs no labels",
            ],
            tower={**tower, "block": {"dropout": 0.1}},
        )


def _bytes(pixels: np.ndarray) -> np.ndarray:
    """Pixels as uint8."""
    if pixels.dtype == np.uint8:
        return pixels
    return (np.nan_to_num(pixels.astype(np.float64)).clip(0, 1) * 255).round().astype(np.uint8)
