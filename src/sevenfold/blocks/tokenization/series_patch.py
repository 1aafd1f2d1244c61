"""A series as patches: P time steps of all channels are one vector.

    z_i = ((x[iS : iS+P, :] - m) / s) flattened            in R^(P*C);  m, s of each channel

m and s are those of the training series (decoding gives the scale back), or with `instance_norm` those of the item
itself (decoding gives the normalised series). A missing value is 0 after that, the mean. The last value is repeated until
the patches are whole; PatchTST repeats it S times, whole or not.

Nie 2022 (PatchTST), arXiv:2211.14730 section 3.1, P 16, S 8, where channels go through the model one by one: give it
one channel for that. Also MOIRAI, TimesFM.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, check_ready, line
from sevenfold.blocks.tokenization._record import numbers, read_record, write_record
from sevenfold.blocks.tokenization._series import series, waves
from sevenfold.core.errors import CheckpointError, DataError
from sevenfold.core.types import Tokens


class SeriesPatch(Tokenizer):
    """array [T] or [T C] → vectors [n P*C] float32 (time, then channel), coords [n 1]; decodes to [T' C] float32, or [T']
    of one channel, T' = T rounded up to whole patches."""

    class Config(Tokenizer.Config):
        patch: int = Field(16, ge=1, le=65536)
        """Time steps P of a patch."""
        stride: int | None = Field(None, ge=1)
        """Time steps S from one patch to the next, at most P; by default P."""
        instance_norm: bool = False
        """Whether m and s are those of each item."""

    lossless = False
    variants = ({"patch": 8, "stride": 4}, {"patch": 8, "instance_norm": True})

    def __init__(self, config: Any):
        super().__init__(config)
        self.stride = config.stride or config.patch
        self.idempotent = not config.instance_norm  # repeated values at the end move m and s
        self.mean, self.std = np.zeros(0), np.zeros(0)
        """m and s of the training series, [C] float64."""

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[np.ndarray]:
        return waves(seed)

    def fit(self, raws: Iterable[Any]) -> None:
        if self.stride > self.config.patch:
            raise DataError(
                f"series_patch: a stride of {self.stride} leaves gaps between patches of {self.config.patch}"
            )
        count, mean, squares = np.zeros(1), np.zeros(1), np.zeros(1)
        channels: int | None = None
        for raw in raws:
            values = series(raw).astype(np.float64)
            if channels not in (None, values.shape[1]):
                raise DataError(f"the series have {channels} and {values.shape[1]} channels: give one kind")
            channels = values.shape[1]
            # Means and squared distances from them are joined, item by item: sums of squares would cancel far from 0.
            known = np.isfinite(values)
            more = known.sum(0)
            own = np.where(known, values, 0).sum(0) / np.maximum(more, 1)
            away, all_of_it = own - mean, np.maximum(count + more, 1)
            squares = squares + np.square(np.where(known, values - own, 0)).sum(0) + away**2 * count * more / all_of_it
            mean = mean + away * more / all_of_it
            count = count + more
        if channels is None or not count.all():
            raise DataError(
                "the series_patch tokenizer was given no series to learn from, or a channel without numbers"
            )
        std = np.sqrt(squares / count)
        self._adopt(mean, np.where(std > 1e-12 * np.abs(mean) + 1e-30, std, 1.0))

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        values, size, stride = series(raw), self.config.patch, self.stride
        if values.shape[1] != len(self.mean):
            raise ValueError(f"the series has {values.shape[1]} channels, but the tokenizer takes {len(self.mean)}")
        mean, std = self.mean, self.std
        if self.config.instance_norm:
            mean, std = instance(values)
        values = np.nan_to_num((values - mean.astype(np.float32)) / std.astype(np.float32))
        count = -(-max(len(values) - size, 0) // stride) + 1
        short = (count - 1) * stride + size - len(values)
        if short:
            values = np.concatenate([values, np.repeat(values[-1:], short, axis=0)])
        if stride == size:
            patches = values.reshape(count, -1)
        else:
            windows = np.lib.stride_tricks.sliding_window_view(values, size, axis=0)[::stride]
            patches = windows.swapaxes(1, 2).reshape(count, -1)
        return Tokens(patches, line(count))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> np.ndarray:
        """Where patches overlap, their mean; steps that no patch covers are missing (NaN)."""
        check_ready(self)
        size, stride, channels = self.config.patch, self.stride, len(self.mean)
        patches = np.asarray(values, np.float64).reshape(len(values), size, channels)
        places = np.arange(len(patches)) if coords is None else np.rint(np.asarray(coords)[:, 0]).astype(np.int64)
        steps = (places[:, None] * stride + np.arange(size)).reshape(-1)
        total = np.zeros((int(steps.max(initial=0)) + 1, channels))
        times = np.zeros(len(total))
        np.add.at(total, steps, patches.reshape(-1, channels))
        np.add.at(times, steps, 1.0)
        with np.errstate(invalid="ignore"):
            found = total / times[:, None]
        if not self.config.instance_norm:
            found = found * self.std + self.mean
        return (found[:, 0] if channels == 1 else found).astype(np.float32)

    def spans(self, raw: Any) -> np.ndarray:
        length = len(series(raw))
        begin = self.encode(raw).coords[:, 0] * self.stride
        return np.stack([begin, np.minimum(begin + self.config.patch, length)], axis=1)

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        return [*names, write_record(folder, {"mean": self.mean.tolist(), "std": self.std.tolist()})]

    def restore(self, folder: Path) -> None:
        path, record = read_record(folder)
        mean, std = numbers(path, record, "mean"), numbers(path, record, "std", above=0)
        if len(mean) != len(std):
            raise CheckpointError(f"{path}: mean has {len(mean)} channels, and std {len(std)}")
        self._adopt(mean, std)

    def _adopt(self, mean: np.ndarray, std: np.ndarray) -> None:
        self.mean, self.std = mean, std
        self.features = self.config.patch * len(mean)


def instance(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of one item [T C], missing values aside; 1 for a constant channel."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(0), 1)
    filled = np.where(known, values, 0).astype(np.float64)
    mean = filled.sum(0) / count
    std = np.sqrt(np.square(np.where(known, filled - mean, 0)).sum(0) / count)
    return mean, np.where(std > 1e-6 * (np.abs(mean) + 1e-6), std, 1.0)
