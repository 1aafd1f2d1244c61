"""Patches of a picture with many channels as ids: for each patch and each marker, how bright it is, in B classes.

    z = B m + b,   b: the number of the B - 1 quantiles of marker m's training patches that the mean of the patch exceeds

A token says which marker it is of (m, also its third coordinate) and how bright (b). Quantiles are of each marker, as
stains differ in brightness by orders of magnitude. Only the mean of a patch is kept: choose patches as small as what
matters. A token for each patch and channel: Bao 2023 (ChannelViT), arXiv:2309.16108 section 3.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, check_ready
from sevenfold.blocks.tokenization._codebook import read_arrays
from sevenfold.core.cell import Micrograph
from sevenfold.core.errors import CheckpointError, DataError
from sevenfold.core.files import read_json, write_atomic
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens

FILE, NAMES = "bins.safetensors", "markers.json"
SAMPLE = 1_000_000
"""The most patches of a marker that quantiles are taken of."""


def micrograph_of(raw: Any) -> tuple[tuple[str, ...] | None, np.ndarray]:
    """(markers, or None where the channels have no names; pixels [H W C] float64). ValueError, one line, if it is none."""
    markers, pixels = (raw.markers, raw.pixels) if isinstance(raw, Micrograph) else (None, raw)
    if not isinstance(pixels, np.ndarray):
        raise ValueError(f"a micrograph is an array [height width channels], not {type(raw).__name__}")
    if pixels.ndim != 3 or pixels.size == 0 or pixels.dtype.kind not in "uif":
        raise ValueError(
            f"a micrograph is an array of numbers [height width channels], not {pixels.dtype} {list(pixels.shape)}"
        )
    if markers is not None and len(markers) != pixels.shape[2]:
        raise ValueError(f"{len(markers)} markers are named for {pixels.shape[2]} channels: name one for each")
    if markers is not None and len(set(markers)) < len(markers):
        twice = next(marker for marker in markers if markers.count(marker) > 1)
        raise ValueError(f"the marker {twice!r} is named twice")
    wrong = np.argwhere(~(np.isfinite(pixels) & (pixels >= 0)))
    if len(wrong):
        row, column, channel = wrong[0].tolist()
        name = repr(markers[channel]) if markers else str(channel)
        raise ValueError(
            f"the intensity at row {row}, column {column} of channel {name} is {pixels[row, column, channel]:g}, but "
            "intensities are finite and not below 0"
        )
    return markers, pixels.astype(np.float64)


class Intensity(Tokenizer):
    """array [H W C] or Micrograph → ids [n], coords [n 3] (row, column, marker); decodes to a Micrograph, each patch as
    bright as the training patches of its class are on average."""

    class Config(Tokenizer.Config):
        patch: int = Field(4, ge=1, le=256)
        """Height and width of a patch, in pixels."""
        bins: int = Field(32, ge=2, le=65536)
        """B, classes of brightness of each marker; fewer where a marker has fewer different ones."""
        markers: tuple[str, ...] | None = None
        """What the channels of pictures without names show, in their order; by default `channel 0`, `channel 1` …"""

    axes = 3
    lossless = False

    def __init__(self, config: Any):
        super().__init__(config)
        self.markers: tuple[str, ...] = ()
        """The markers known, in the order of their numbers m."""
        self.edges = np.zeros((0, 0))
        """The quantiles, [markers B-1], rising."""
        self.centers = np.zeros((0, 0))
        """The mean of each class, [markers B]."""

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[np.ndarray]:
        draw = numpy_generator("micrographs", seed)
        glow = np.array([300.0, 40.0, 5000.0])
        return [np.kron(draw.gamma(0.7, glow, (3, 2, 3)), np.ones((4, 4, 1))).astype(np.uint16) for _ in range(24)]

    def _means(self, raw: Any) -> tuple[tuple[str, ...] | None, np.ndarray]:
        """(markers, the mean of each patch [rows columns C])."""
        markers, pixels = micrograph_of(raw)
        size, (height, width, channels) = self.config.patch, pixels.shape
        if height % size or width % size:
            raise ValueError(
                f"a picture of {height} by {width} pixels is not a whole number of {size} by {size} patches: crop or pad "
                "it, or set patch to a divisor of both"
            )
        cut = pixels.reshape(height // size, size, width // size, size, channels)
        return markers, cut.mean((1, 3))

    def fit(self, raws: Iterable[Any]) -> None:
        found: dict[str, list[np.ndarray]] = {}
        counts = set()
        for raw in raws:
            markers, means = self._means(raw)
            if markers is None:
                counts.add(means.shape[2])
                markers = self._unnamed(means.shape[2])
            for channel, marker in enumerate(markers):
                found.setdefault(marker, []).append(means[:, :, channel].ravel())
        if not found or len(counts) > 1:
            have = f"have {' and '.join(map(str, sorted(counts)))} channels without names" if counts else "are missing"
            raise DataError(f"the pictures that the {self.kind} tokenizer should learn from {have}: name their markers")
        edges, centers = [], []
        for parts in found.values():
            values = np.concatenate([part[:: max(1, len(parts) * len(part) // SAMPLE)] for part in parts])
            cuts = np.quantile(values, np.arange(1, self.config.bins) / self.config.bins, method="inverted_cdf")
            place = np.searchsorted(cuts, values, side="left")
            times = np.bincount(place, minlength=self.config.bins)
            sums = np.bincount(place, values, minlength=self.config.bins)
            # A class that holds nothing (equal quantiles) is never given; it stands where its lower edge does.
            below = np.concatenate([[values.min()], cuts])
            center = np.where(times > 0, sums / times.clip(min=1), below)
            edges.append(cuts)
            centers.append(np.clip(center, below, np.append(cuts, np.inf)))
        self._adopt(tuple(found), np.stack(edges), np.stack(centers))

    def _unnamed(self, channels: int) -> tuple[str, ...]:
        """The markers of a picture whose channels have no names."""
        known = self.config.markers or self.markers
        if known and len(known) != channels:
            raise ValueError(
                f"the picture has {channels} channels, but the {self.kind} tokenizer knows {len(known)} "
                f"({', '.join(known[:8])}): give those, or a Micrograph that names its markers"
            )
        return known or tuple(f"channel {number}" for number in range(channels))

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        markers, means = self._means(raw)
        markers = self._unnamed(means.shape[2]) if markers is None else markers
        unknown = [marker for marker in markers if marker not in self.markers]
        if unknown:
            raise ValueError(
                f"the marker {unknown[0]!r} was not in the training data; known: {', '.join(self.markers[:20])}"
            )
        number = np.array([self.markers.index(marker) for marker in markers])
        means = means * (1 - 1e-9)  # what stands on an edge stays below it, however its mean is rounded
        bins = [np.searchsorted(self.edges[m], means[:, :, at], side="left") for at, m in enumerate(number)]
        ids = self.config.bins * number + np.stack(bins, axis=2)
        rows, columns, channels = np.indices(ids.shape).reshape(3, -1)
        return Tokens(ids.reshape(-1).astype(np.int64), np.stack([rows, columns, number[channels]], axis=1))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> Micrograph:
        """Patches without a token are 0. Without coords, ids are those of a square picture of all markers."""
        check_ready(self)
        ids = np.asarray(values, np.int64)
        kept = ids < len(self.markers) * self.config.bins
        if coords is None:
            across = max(1, round((len(ids) / len(self.markers)) ** 0.5))
            patch = np.arange(len(ids)) // len(self.markers)
            coords = np.stack([patch // across, patch % across], axis=1)
        places, ids = np.asarray(coords, np.int64)[kept, :2], ids[kept]
        number, bins = np.divmod(ids, self.config.bins)
        shown = np.unique(number) if len(ids) else np.arange(len(self.markers))
        rows, columns = (places.max(0) + 1 if len(ids) else np.ones(2, np.int64)).tolist()
        sheet = np.zeros((rows, columns, len(shown)))
        sheet[places[:, 0], places[:, 1], np.searchsorted(shown, number)] = self.centers[number, bins]
        size = self.config.patch
        return Micrograph((self.markers[m] for m in shown), sheet.repeat(size, 0).repeat(size, 1))

    def piece(self, id: int) -> str:
        marker, level = divmod(id, self.config.bins)
        return f"{self.markers[marker]} {level}" if 0 <= marker < len(self.markers) else super().piece(id)

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        content = {"edges": self.edges, "centers": self.centers}
        write_atomic(Path(folder) / FILE, safetensors.numpy.save(content))
        write_atomic(Path(folder) / NAMES, json.dumps(self.markers, ensure_ascii=False) + "\n")
        return [*names, FILE, NAMES]

    def restore(self, folder: Path) -> None:
        path, markers = Path(folder) / FILE, read_json(Path(folder) / NAMES)
        content = read_arrays(path)
        if not isinstance(markers, list) or not markers or any(type(marker) is not str for marker in markers):
            raise CheckpointError(f"{Path(folder) / NAMES}: is not a list of markers")
        edges, centers = (content.get(name, np.zeros(0)) for name in ("edges", "centers"))
        shapes = (len(markers), self.config.bins - 1), (len(markers), self.config.bins)
        if (edges.shape, centers.shape) != shapes or not (np.isfinite(edges).all() and np.isfinite(centers).all()):
            raise CheckpointError(f"{path}: holds no {self.config.bins} classes of {len(markers)} markers")
        self._adopt(tuple(markers), edges, centers)

    def _adopt(self, markers: tuple[str, ...], edges: np.ndarray, centers: np.ndarray) -> None:
        self.markers, self.edges, self.centers = markers, edges, centers
        self.size = len(markers) * self.config.bins + 2
        self.specials = {"pad": self.size - 2, "mask": self.size - 1}
