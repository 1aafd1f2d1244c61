"""What the picture tokenizers share: a picture is cut into a grid of P x P patches, and put together again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.core.errors import CheckpointError, DataError
from sevenfold.core.seeds import numpy_generator

LARGEST = 1 << 24
"""The most patches of one picture that a file may speak of."""


def picture(raw: Any) -> np.ndarray:
    """A picture as [height width channels], uint8 or float32, from an array [H W C] or [H W].

    Raises ValueError, one line: not an array, empty, another number of axes, another type of number.
    """
    if not isinstance(raw, np.ndarray):
        raise ValueError(f"a picture is an array [height width channels], not {type(raw).__name__}")
    if raw.ndim not in (2, 3) or raw.size == 0:
        raise ValueError(f"a picture is an array [height width channels], not one of shape {list(raw.shape)}")
    pixels = raw[:, :, None] if raw.ndim == 2 else raw
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * 255
    if pixels.dtype == np.uint8:
        return pixels
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"a picture holds uint8 in 0...255 or floats in 0...1, not {pixels.dtype}: convert it")
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(f"a picture of floats is in 0...1, not {pixels.min():g}...{pixels.max():g}: rescale it")
    return pixels.astype(np.float32)


class PatchTokenizer(Tokenizer):
    """array [H W C] → one token per P x P patch, row by row; coords [n 2] are (row, column) in the grid of patches."""

    class Config(Tokenizer.Config):
        patch: int = Field(4, ge=1, le=256)
        """Height and width P of a patch, in pixels."""

    axes = 2
    trims: bool = False
    """Whether rows and columns beyond the last whole patch are left out."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.channels: int | None = None
        """Channels of every picture; None until it is known."""
        self.cells: tuple[int, int] | None = None
        """Rows and columns of patches, if all training pictures had the same."""

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[np.ndarray]:
        return [(image * 255).astype(np.uint8) for image in pictures(seed)]

    def look(self, raws: Iterable[Any]) -> None:
        """Learn the number of channels and of cells from pictures; DataError if the channels differ."""
        shapes = {picture(raw).shape for raw in raws}
        channels = sorted({shape[2] for shape in shapes})
        if len(channels) != 1:
            found = f"have {' and '.join(map(str, channels))} channels" if channels else "are missing"
            raise DataError(f"the pictures that the {self.kind} tokenizer should learn from {found}: give one kind")
        size = self.config.patch
        cells = {(height // size, width // size) for height, width, _ in shapes if min(height, width) >= size}
        self.channels = channels[0]
        self.cells = cells.pop() if len(cells) == 1 else None

    def layout(self) -> np.ndarray | None:
        return None if self.cells is None else raster(self.cells[0] * self.cells[1], self.cells[1])

    def cut(self, raw: Any) -> tuple[np.ndarray, np.ndarray]:
        """Patches [n P*P*C] float32 in 0…1, each by row, column, channel; and coords [n 2]."""
        pixels, size = picture(raw), self.config.patch
        height, width, channels = pixels.shape
        if channels != self.channels:
            raise ValueError(
                f"the picture has {channels} channels, but the {self.kind} tokenizer takes {self.channels}: convert it"
            )
        if self.trims:
            pixels = pixels[: height - height % size, : width - width % size]
            height, width, _ = pixels.shape
        if height % size or width % size or not pixels.size:
            raise ValueError(
                f"a picture of {height} by {width} pixels is not a whole number of {size} by {size} patches: "
                f"crop or pad it, or set patch to a divisor of both"
            )
        scaled = pixels.astype(np.float32) / 255 if pixels.dtype == np.uint8 else pixels
        rows, columns = height // size, width // size
        patches = scaled.reshape(rows, size, columns, size, channels).swapaxes(1, 2).reshape(rows * columns, -1)
        return patches, raster(len(patches), columns)

    def paste(self, patches: np.ndarray, coords: np.ndarray) -> np.ndarray:
        """The picture [H W C] of patches [n P*P*C] at coords [n 2]; 0 where there is none."""
        size = self.config.patch
        coords = coords.astype(np.int64)
        rows, columns = (coords.max(0) + 1 if len(coords) else np.ones(2, np.int64)).tolist()
        if self.cells is not None:
            rows, columns = max(rows, self.cells[0]), max(columns, self.cells[1])
        sheet = np.zeros((rows, columns, size, size, self.channels or 1), np.float32)
        sheet[coords[:, 0], coords[:, 1]] = patches.reshape(len(patches), size, size, -1)
        return sheet.swapaxes(1, 2).reshape(rows * size, columns * size, -1)

    def places(self, count: int, coords: np.ndarray | None) -> np.ndarray:
        """The coords [n 2] of `count` tokens: the given ones, or row by row over the learned cells or a square."""
        if coords is not None:
            return np.asarray(coords)
        return raster(count, self.cells[1] if self.cells is not None else max(1, round(count**0.5)))

    def restore_cells(self, path: Path, cells: Any) -> None:
        """Take over what was read from a file: [rows, columns] or None; CheckpointError if it is something else."""
        if cells is not None:
            if not isinstance(cells, list) or len(cells) != 2 or not all(type(n) is int and n > 0 for n in cells):
                raise CheckpointError(f"{path}: the cells {cells!r} are not numbers of rows and columns")
            if cells[0] * cells[1] > LARGEST:
                raise CheckpointError(f"{path}: {cells[0]} by {cells[1]} cells are more than {LARGEST}")
        self.cells = None if cells is None else (cells[0], cells[1])


def raster(count: int, columns: int) -> np.ndarray:
    """(row, column) of `count` cells, row by row, [n 2]."""
    return np.stack(np.divmod(np.arange(count, dtype=np.int64), columns), axis=1)


def pictures(seed: int = 0, count: int = 24, side: int = 8) -> list[np.ndarray]:
    """Pictures of a filled disc or box in some place, [side side 1] float32, 0 and 1."""
    draw = numpy_generator("pictures", seed)
    down, across = np.mgrid[:side, :side]
    images = []
    for index in range(count):
        row, column = draw.integers(1, side - 1, 2)
        radius = draw.uniform(1, side / 2.5)
        away = [np.abs(down - row), np.abs(across - column)]
        distance = np.maximum(*away) if index % 2 else np.hypot(*away)
        images.append((distance <= radius)[:, :, None].astype(np.float32))
    return images
