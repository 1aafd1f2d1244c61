"""Patches of a picture as ids: the number of the nearest of K patches, learned by k-means.

    z_ij = argmin_k |x_ij - e_k|^2,  e = k-means of the training patches;  then pad, bos, eos, mask

Lloyd 1982, doi:10.1109/TIT.1982.1056489, with k-means++ starts. ImageGPT (arXiv:2006.10055 sec. 3.1) does this to
colours (P = 1, K = 512); VQ-VAE learns the patches together with an encoder instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from pydantic import Field
from sklearn.cluster import KMeans, MiniBatchKMeans
from threadpoolctl import threadpool_limits

from sevenfold.blocks.tokenization import check_ready
from sevenfold.blocks.tokenization._codebook import nearest, read_arrays
from sevenfold.blocks.tokenization._picture import PatchTokenizer
from sevenfold.core.errors import CheckpointError, DataError
from sevenfold.core.files import write_atomic
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens

FILE = "codebook.safetensors"
SAMPLE = 200_000
"""The most patches that k-means sees; taken evenly, at random places, from all pictures."""
SMALL = 50_000
"""Up to so many patches k-means is run in full, beyond on mini-batches."""


class QuantizedPatch(PatchTokenizer):
    """array [H W C], uint8 or 0…1 → ids [n]; decodes to the codebook's patches, [H W C] float32 in 0…1."""

    class Config(PatchTokenizer.Config):
        patch: int = Field(2, ge=1, le=64)
        """Height and width P of a patch, in pixels."""
        size: int = Field(256, ge=1, le=65536)
        """The most patches K in the codebook; fewer if the data has fewer different ones."""
        seed: int = Field(0, ge=0, lt=2**32)
        """Seed of k-means."""

    lossless = False

    def __init__(self, config: Any):
        super().__init__(config)
        self.codebook = np.zeros((0, 0), np.float32)
        """[K P*P*C] in 0…1, in ascending order."""

    def fit(self, raws: Iterable[Any]) -> None:
        raws = list(raws)
        self.look(raws)
        draw = numpy_generator("patches", self.config.seed)
        most = max(1, SAMPLE // len(raws))
        taken = [draw.permutation(patches)[:most] for patches in (self.cut(raw)[0] for raw in raws)]
        patches = np.concatenate(taken)
        distinct = np.unique(patches, axis=0)
        if len(distinct) > self.config.size:
            with threadpool_limits(1):  # sums in another order would give another codebook
                centers = self._means(len(patches)).fit(patches).cluster_centers_
            distinct = np.unique(centers.astype(np.float32).clip(0, 1), axis=0)
        if not np.isfinite(distinct).all():
            raise DataError("the training pictures hold numbers that are not finite")
        self._adopt(distinct)

    def _means(self, patches: int) -> Any:
        size, seed = self.config.size, self.config.seed
        if patches <= SMALL:
            return KMeans(size, n_init=1, max_iter=100, random_state=seed)
        # Reassigning rarely used patches, its default, makes many of them the same when pictures are mostly black.
        batch = {"batch_size": max(8192, 4 * size), "max_iter": 20, "max_no_improvement": None}
        return MiniBatchKMeans(size, n_init=1, random_state=seed, reassignment_ratio=0, **batch)

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        patches, coords = self.cut(raw)
        return Tokens(nearest(patches, self.codebook), coords)

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> np.ndarray:
        check_ready(self)
        ids = np.asarray(values)
        places = self.places(len(ids), coords)
        kept = ids < len(self.codebook)
        return self.paste(self.codebook[ids[kept]], places[kept])

    def vectors(self) -> np.ndarray | None:
        if self.size is None:
            return None
        specials = np.zeros((self.size - len(self.codebook), self.codebook.shape[1]), np.float32)
        return np.concatenate([self.codebook, specials])

    def piece(self, id: int) -> str:
        """The brightness of the patch's pixels in percent."""
        if not 0 <= id < len(self.codebook):
            return super().piece(id)
        return f"{id}:{round(100 * float(self.codebook[id].mean()))}%"

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        size = self.config.patch
        content: dict[str, np.ndarray] = {
            "codebook": self.codebook.reshape(len(self.codebook), size, size, -1),
            "cells": np.array(self.cells or (), np.int64),
        }
        write_atomic(Path(folder) / FILE, safetensors.numpy.save(content))
        return [*names, FILE]

    def restore(self, folder: Path) -> None:
        path = Path(folder) / FILE
        content = read_arrays(path)
        codebook, size = content.get("codebook", np.zeros(0)), self.config.patch
        if codebook.dtype != np.float32 or codebook.ndim != 4 or codebook.shape[1:3] != (size, size):
            raise CheckpointError(f"{path}: holds no codebook of {size} by {size} patches")
        if not 0 < len(codebook) <= self.config.size or not codebook.shape[3] or not np.isfinite(codebook).all():
            raise CheckpointError(f"{path}: the codebook is empty, larger than {self.config.size} or not finite")
        self.channels = codebook.shape[3]
        self.restore_cells(path, content.get("cells", np.zeros(0)).tolist() or None)
        self._adopt(codebook.reshape(len(codebook), -1))

    def _adopt(self, codebook: np.ndarray) -> None:
        self.codebook = codebook
        self.specials = {name: len(codebook) + place for place, name in enumerate(("pad", "bos", "eos", "mask"))}
        self.size = len(codebook) + len(self.specials)
