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


def pbmc(data: Path, cache: Path) -> dict[str, Path]:
    """cells → .h5ad of 4,271 cells, counts of the 2,000 genes that vary most (without names), and `type` of 8 (10x Genomics PBMC
    4k, types by clustering)."""
    path = cache / "pbmc4k.h5ad"
    if not path.is_file():
        import anndata
        import h5py
        from scipy.sparse import csr_matrix

        with h5py.File(data / "pbmc4k_10x" / "10X_PBMC_top2000.h5") as file:
            counts, types = file["X"][:].astype(np.float32), file["Y"][:]
        cells = anndata.AnnData(csr_matrix(counts))
        cells.var_names = [f"gene {place:04}" for place in range(counts.shape[1])]
        cells.obs_names = [f"cell {place:04}" for place in range(len(counts))]
        cells.obs["type"] = [f"type {one}" for one in types]
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp.h5ad")
        cells.write_h5ad(aside)
        aside.replace(path)
    return {"train": path}


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
