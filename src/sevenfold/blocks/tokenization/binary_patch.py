"""Patches of a black and white picture as ids: the pixels of a patch are the bits of its id.

    z_ij = sum_k 2^(P*P-1-k) [x_k >= t]         x_0 ... x_(P*P-1) the patch by rows; then pad, bos, eos, mask

Ours; a vocabulary of every possible patch (16 for P = 2). The smallest picture tokenizer that loses nothing. With P = 1,
the binary pixels of Larochelle and Murray 2011 (NADE), proceedings.mlr.press/v15/larochelle11a.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import check_ready
from sevenfold.blocks.tokenization._picture import PatchTokenizer, pictures
from sevenfold.core.errors import CheckpointError, DataError
from sevenfold.core.files import read_json, write_atomic
from sevenfold.core.types import Tokens

FILE = "preprocessor_config.json"


class BinaryPatch(PatchTokenizer):
    """array [H W 1] → ids [n]; decodes to [H W 1] float32 of 0 and 1. Lossless on pictures of 0 and 1."""

    class Config(PatchTokenizer.Config):
        patch: int = Field(2, ge=1, le=4)
        """Height and width P of a patch, in pixels; there are 2^(P*P) ids."""
        threshold: float = Field(0.5, gt=0, le=1)
        """t, from which a pixel in 0…1 counts as 1."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.codes = 2 ** (config.patch**2)
        self.specials = {name: self.codes + place for place, name in enumerate(("pad", "bos", "eos", "mask"))}
        self._powers = 2 ** np.arange(config.patch**2 - 1, -1, -1, dtype=np.int64)

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[np.ndarray]:
        return pictures(seed)

    def fit(self, raws: Iterable[Any]) -> None:
        """Learns how many cells a picture has; the ids are known."""
        self.look(raws)
        if self.channels != 1:
            raise DataError(
                f"the pictures have {self.channels} channels, but binary_patch takes 1: convert them to grey"
            )
        self.size = self.codes + len(self.specials)

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        patches, coords = self.cut(raw)
        return Tokens((patches >= self.config.threshold) @ self._powers, coords)

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> np.ndarray:
        check_ready(self)
        ids = np.asarray(values)
        places = self.places(len(ids), coords)
        kept = ids < self.codes
        bits = (ids[kept, None] & self._powers) > 0
        return self.paste(bits.astype(np.float32), places[kept])

    def piece(self, id: int) -> str:
        """The patch drawn in letters: `.` is 0, `#` is 1, rows are separated by `/`."""
        if id >= self.codes:
            return super().piece(id)
        drawn = "".join("#" if id & power else "." for power in self._powers.tolist())
        return "/".join(drawn[start : start + self.config.patch] for start in range(0, len(drawn), self.config.patch))

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        write_atomic(Path(folder) / FILE, json.dumps({"num_channels": 1, "cells": self.cells}) + "\n")
        return [*names, FILE]

    def restore(self, folder: Path) -> None:
        path = Path(folder) / FILE
        record = read_json(path)
        if not isinstance(record, dict) or record.get("num_channels") != 1:
            raise CheckpointError(f"{path}: is not the record of a binary_patch tokenizer")
        self.restore_cells(path, record.get("cells"))
        self.channels, self.size = 1, self.codes + len(self.specials)
