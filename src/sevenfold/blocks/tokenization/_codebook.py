"""What tokenizers with a codebook share: arrays in a file, and the nearest row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy

from sevenfold.core.errors import CheckpointError


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, by name; CheckpointError if it cannot be read."""
    try:
        return safetensors.numpy.load(path.read_bytes())
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        why = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: cannot be read as safetensors: {why}") from None


def nearest(points: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Which row of codebook [K p] is nearest to each of points [n p], [n] int64; a few megabytes at a time."""
    codes = codebook.astype(np.float64)
    squares, step = (codes**2).sum(1), max(1, 2**20 // len(codes))
    parts = [points[start : start + step].astype(np.float64) for start in range(0, len(points), step)]
    return np.concatenate([np.zeros(0, np.int64), *((squares - 2 * part @ codes.T).argmin(1) for part in parts)])
