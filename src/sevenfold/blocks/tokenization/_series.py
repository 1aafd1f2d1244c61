"""What the tokenizers of series share: the form of an item, and small ones to try things on."""

from __future__ import annotations

from typing import Any

import numpy as np

from sevenfold.core.seeds import numpy_generator

LARGEST = 1e30
"""Numbers beyond it would not survive in float32."""


def series(raw: Any) -> np.ndarray:
    """A series as [T C] float32, from an array [T] or [T C] of numbers, NaN where one is missing.

    Raises ValueError, one line: not an array, empty, another number of axes, infinite, or missing throughout.
    """
    if not isinstance(raw, np.ndarray):
        raise ValueError(f"a series is an array [time] or [time channels], not {type(raw).__name__}")
    if raw.ndim not in (1, 2) or raw.dtype.kind not in "iufb":
        raise ValueError(
            f"a series is an array [time] or [time channels] of numbers, not {list(raw.shape)} {raw.dtype}"
        )
    if raw.size == 0:
        raise ValueError("the series is empty")
    values = raw[:, None] if raw.ndim == 1 else raw
    low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    if np.isnan(low):
        raise ValueError("the series has no number in it: all are missing")
    if not (low >= -LARGEST and high <= LARGEST):
        raise ValueError(f"the series has numbers in {low:g}...{high:g}: they must be finite and below {LARGEST:g}")
    return np.asarray(values, np.float32)


def waves(seed: int = 0, count: int = 16, length: int = 96, channels: int = 1) -> list[np.ndarray]:
    """Sums of two sines with noise about 0, of different lengths up to `length`, each [T] or [T channels] float32."""
    draw = numpy_generator("waves", seed)
    found = []
    for _ in range(count):
        time = np.arange(int(draw.integers(length // 2, length + 1)))[:, None]
        period, phase = draw.uniform(8, 32, (2, channels)), draw.uniform(0, 6, (2, channels))
        size = draw.uniform(4, 12, channels)
        wave = size * (np.sin(time / period[0] * 6.28 + phase[0]) + 0.5 * np.sin(time / period[1] * 6.28 + phase[1]))
        noisy = (wave + draw.normal(0, 0.3, wave.shape)).astype(np.float32)
        found.append(noisy[:, 0] if channels == 1 else noisy)
    return found
