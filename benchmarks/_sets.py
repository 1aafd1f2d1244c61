"""Public data sets as files that the sources read, made once from the files as they are published.

`--data FOLDER` of the benchmarks holds a folder for each set under its own name, with the published files in it; what is made
of them goes to `--cache`. Nothing is downloaded.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np


def mnist(data: Path, cache: Path) -> dict[str, Path]:
    """train and test → .npz of image [N 28 28] uint8 and label [N] (LeCun 1998, the four idx files)."""
    found = {}
    for name, stem in (("train", "train"), ("test", "t10k")):
        path = cache / f"mnist_{name}.npz"
        if not path.is_file():
            images = idx(data / "mnist" / f"{stem}-images-idx3-ubyte.gz")
            labels = idx(data / "mnist" / f"{stem}-labels-idx1-ubyte.gz")
            save(path, image=images, label=labels.astype(np.int64))
        found[name] = path
    return found


def idx(path: Path) -> np.ndarray:
    """An array of bytes in LeCun's format: two bytes of 0, the type (8: unsigned bytes), the number of axes, the axes."""
    raw = gzip.decompress(path.read_bytes())
    axes = raw[3]
    shape = np.frombuffer(raw, ">i4", axes, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def save(path: Path, **arrays: np.ndarray) -> None:
    """An .npz under its final name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp.npz")
    np.savez(aside, **arrays)  # type: ignore[arg-type]
    aside.replace(path)
