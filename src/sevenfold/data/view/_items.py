"""Raw items as views work on them: taken apart, and put together again in the form and the type that they had."""

from __future__ import annotations

from typing import Any

import numpy as np

from sevenfold.core.cell import Cell, Micrograph
from sevenfold.data.view import View

PICTURES = ("image", "microscopy")
"""Modalities of arrays [H W C]."""


def pixels_of(view: View, raw: Any) -> np.ndarray:
    """[H W C] of a picture or a micrograph."""
    pixels = raw.pixels if isinstance(raw, Micrograph) else raw
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 3:
        raise view.refusal("pictures", raw)
    return pixels


def like(raw: Any, pixels: np.ndarray) -> Any:
    """Numbers in the form and type of the picture (or array) that they were made of."""
    if isinstance(raw, Micrograph):
        return Micrograph(raw.markers, typed(raw.pixels, pixels))
    return typed(raw, pixels)


def typed(raw: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Numbers in the type of an array; whole ones are rounded, and stay within what the type holds."""
    if raw.dtype.kind not in "iu":
        return values.astype(raw.dtype, copy=False)
    limits = np.iinfo(raw.dtype)
    return np.rint(np.minimum(np.maximum(values, limits.min), limits.max)).astype(raw.dtype)


def array_of(view: View, raw: Any, what: str) -> np.ndarray:
    """An array of numbers, whatever its axes."""
    if not isinstance(raw, np.ndarray) or raw.ndim == 0:
        raise view.refusal(what, raw)
    return raw


def points_of(view: View, raw: Any) -> np.ndarray:
    """[n 3+f] of a cloud, or [n 3 3] of a backbone: the last axis begins with x, y and z."""
    if not isinstance(raw, np.ndarray) or raw.ndim < 2 or raw.shape[-1] < 3:
        raise view.refusal("points in space", raw)
    return raw


def placed(raw: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The points at other places [... 3], with whatever else is known of each."""
    moved = raw.astype(raw.dtype if raw.dtype.kind == "f" else np.float32)
    moved[..., :3] = places
    return moved


def middle(places: np.ndarray) -> np.ndarray:
    """The mean of places [... 3] that are known, [3]."""
    flat = places.reshape(-1, 3).astype(np.float64)
    return flat[np.isfinite(flat).all(1)].mean(0)


def letters_of(view: View, raw: Any, what: str = "sequences of letters") -> str:
    if not isinstance(raw, str):
        raise view.refusal(what, raw)
    return raw


def cell_of(view: View, raw: Any) -> Cell:
    if not isinstance(raw, Cell):
        raise view.refusal("cells", raw)
    return raw


def factor(generator: np.random.Generator, low: float, high: float, size: int | None = None) -> Any:
    """Factors in low…high, evenly spread on the scale of logs."""
    return np.exp(generator.uniform(np.log(low), np.log(high), size))
