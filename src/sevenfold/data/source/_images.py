"""Image files as arrays: formats from a list, pixels counted before they are decoded, transparency over white."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from sevenfold.core.errors import BadSample

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
SIZES = (256, 128, 64, 32)
TURNED = (5, 6, 7, 8)
"""Values of the EXIF orientation for which height and width change places."""
ORIENTATION = 0x0112


def look(path: Path | bytes, where: str) -> tuple[int, int, int]:
    """Height, width and channels (1 or 3) of an image (a file, or the bytes of one), as it will be given; from its header only."""
    with _open(path, where) as image:
        width, height = image.size
        turned = _turned(image)
        channels = 1 if image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;") else 3
    return (width, height, channels) if turned else (height, width, channels)


def load(path: Path | bytes, where: str, shape: tuple[int, int, int], largest: int) -> np.ndarray:
    """An image as uint8 of `shape` [height width channels]; its first frame, turned as its EXIF says.

    BadSample if it has more than `largest` pixels (nothing is decoded then), is cut off or of another format.
    """
    from PIL import Image, ImageOps

    with _open(path, where) as image:
        width, height = image.size
        if width * height > largest:
            raise BadSample(where, f"has {width} x {height} pixels, and {largest:,} are allowed: make it smaller")
        try:
            image.load()
            turned = ImageOps.exif_transpose(image)
            flat = _over_white(turned) if turned.has_transparency_data else _eight_bits(turned)
            flat = flat.convert("L" if shape[2] == 1 else "RGB")
            if flat.size != (shape[1], shape[0]):
                flat = flat.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
            return np.array(flat).reshape(shape)
        except Exception as error:  # decoders of damaged files raise anything
            raise BadSample(where, f"the image is damaged: {_first_line(error)}") from None


def _turned(image: Any) -> bool:
    """Whether the header says that height and width change places. (A PNG may say so behind its pixels: not looked at.)"""
    try:
        return image.format != "PNG" and image.getexif().get(ORIENTATION) in TURNED
    except Exception:  # decoders of damaged files raise anything
        return False


def _open(path: Path | bytes, where: str) -> Any:
    from PIL import Image

    try:
        return Image.open(io.BytesIO(path) if isinstance(path, bytes) else path, formats=FORMATS)
    except FileNotFoundError:
        raise BadSample(where, f"there is no image {path!s}") from None
    except Image.DecompressionBombError:
        raise BadSample(where, "has more than 178 million pixels: make it smaller") from None
    except Exception:  # as above
        empty = not path if isinstance(path, bytes) else path.is_file() and path.stat().st_size == 0
        why = "is empty" if empty else f"is not an image ({', '.join(FORMATS)}), or it is damaged"
        raise BadSample(where, why) from None


def _over_white(image: Any) -> Any:
    from PIL import Image

    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _eight_bits(image: Any) -> Any:
    """16-bit grey as 8-bit grey; other images as they are."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("it holds floating-point numbers: save it with 8 bits")
    if image.mode != "I" and not image.mode.startswith("I;"):
        return image
    levels = np.asarray(image).astype(np.float64)
    return Image.fromarray(np.rint(levels / 257).clip(0, 255).astype(np.uint8))


def common_shape(
    looked: list[tuple[int, int, int]], size: int | None, channels: int | None
) -> tuple[tuple[int, int, int], bool]:
    """(height, width and channels that images of these are given as, whether some are resized): `size` and `channels` where a recipe
    says them."""
    sizes = [(height, width) for height, width, _ in looked]
    height, width = (size, size) if size else _common_size(sizes)
    return (height, width, channels or max(found for _, _, found in looked)), set(sizes) != {(height, width)}


def _common_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """The (height, width) that these have; if they differ, a square of 32, 64, 128 or 256, no larger than the shorter
    side of half of them (or 32)."""
    if len(set(sizes)) == 1:
        return sizes[0]
    middle = sorted(min(size) for size in sizes)[len(sizes) // 2]
    side = next((side for side in SIZES if side <= middle), SIZES[-1])
    return side, side


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
