"""Patches of a picture as vectors, the numbers of its pixels.

    z_ij = (x[iP:(i+1)P, jP:(j+1)P, :] flattened - m) / s           in R^(P*P*C), x in 0...1

Dosovitskiy et al. 2020 (ViT), arXiv:2010.11929 sec. 3.1. Within a patch: rows, then columns, then channels (a ViT's
convolution weight [d C P P] needs its axes moved to [d P P C]). ViT, MAE, CLIP, DINOv2, I-JEPA.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from sevenfold.blocks.tokenization import check_ready
from sevenfold.blocks.tokenization._picture import PatchTokenizer
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.core.files import read_json, write_atomic
from sevenfold.core.types import Tokens

FILE = "preprocessor_config.json"


class Patch(PatchTokenizer):
    """array [H W C], uint8 or 0…1 → vectors [n P*P*C] float32; decodes to [H W C] float32 in 0…1, up to rounding."""

    class Config(PatchTokenizer.Config):
        channels: int | None = Field(None, ge=1, le=1024)
        """Channels C of every picture; by default those of the training pictures."""
        cells: tuple[PositiveInt, PositiveInt] | None = None
        """Rows and columns of patches of every picture; by default those of the training pictures, if they are alike."""
        trim: bool = False
        """Leave out rows and columns of pixels beyond the last whole patch, as a convolution does."""
        mean: float | tuple[float, ...] = 0.5
        """m, subtracted from pixels in 0…1: one for all channels, or one each."""
        std: PositiveFloat | tuple[PositiveFloat, ...] = 0.5
        """s, what pixels are divided by after that: one for all channels, or one each."""

    lossless = False

    def __init__(self, config: Any):
        super().__init__(config)
        self.trims = config.trim
        self.cells = config.cells
        if config.channels is not None:
            self._set_channels(config.channels)

    def fit(self, raws: Iterable[Any]) -> None:
        self.look(raws)
        self.cells = self.config.cells or self.cells
        assert self.channels is not None
        self._set_channels(self.config.channels or self.channels)

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        patches, coords = self.cut(raw)
        return Tokens((patches - self.mean) / self.std, coords)

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> np.ndarray:
        check_ready(self)
        patches = np.asarray(values, np.float32) * self.std + self.mean
        return self.paste(patches, self.places(len(patches), coords))

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        record = {"num_channels": self.channels, "patch_size": self.config.patch, "cells": self.cells}
        write_atomic(Path(folder) / FILE, json.dumps(record, indent=1) + "\n")
        return [*names, FILE]

    def restore(self, folder: Path) -> None:
        path = Path(folder) / FILE
        record = read_json(path)
        if not isinstance(record, dict):
            raise CheckpointError(f"{path}: is not the record of a patch tokenizer")
        channels = record.get("num_channels")
        if type(channels) is not int or not 1 <= channels <= 1024:
            raise CheckpointError(f"{path}: num_channels is {channels!r}, not a number of channels")
        if record.get("patch_size") != self.config.patch:
            raise CheckpointError(f"{path}: is for patches of {record.get('patch_size')}, not {self.config.patch}")
        self.restore_cells(path, record.get("cells"))
        self._set_channels(channels)

    def _set_channels(self, channels: int) -> None:
        self.channels = channels
        self.features = self.config.patch**2 * channels
        self.mean, self.std = self._numbers("mean"), self._numbers("std")

    def _numbers(self, field: str) -> np.ndarray:
        """A setting per channel as one number for each of a patch, [P*P*C] float32."""
        value = np.atleast_1d(np.asarray(getattr(self.config, field), np.float32))
        if len(value) not in (1, self.channels):
            raise ConfigError(f"patch: {field} names {len(value)} channels, but the pictures have {self.channels}")
        assert self.channels is not None and self.features is not None
        return np.resize(np.broadcast_to(value, self.channels), self.features)
