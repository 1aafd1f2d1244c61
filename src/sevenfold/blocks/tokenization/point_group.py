"""A point cloud as overlapping groups: centres far from each other, and the nearest points around each.

    c_1 = argmax_i |p_i - m|,   c_t = argmax_i min_{u<t} |p_i - c_u|^2           (farthest point sampling)
    z_t = [(q - c_t) / s : q among the k nearest to c_t, nearest first],   coords_t = (c_t - m) / s

m is the mean of the training points and s the root mean square of q - c_t over them, so vectors are about 1 in size and
neighbouring groups about 1 apart. Further numbers of a point (velocity, intensity) follow its place, standardised.

Qi 2017 (PointNet++), arXiv:1706.02413 section 3.2; groups as tokens: Point-BERT, arXiv:2111.14819, and Point-MAE,
arXiv:2203.06604 section 3.1, which begin at a random point and divide each cloud by its own size instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, check_ready
from sevenfold.blocks.tokenization._record import numbers, read_record, write_record
from sevenfold.core.errors import CheckpointError, DataError
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens

LARGEST = 1e15
"""Coordinates beyond it have squares that float64 sums badly."""
FIT_CLOUDS = 1000
"""The most clouds that scales are learned from."""


class PointGroup(Tokenizer):
    """array [n 3+f] → vectors [g k*(3+f)] float32, coords [g 3] float32 (the centres x y z).

    g = min(centres, distinct points). A cloud of fewer than k points repeats the nearest ones. A cloud is a set: the
    order of its points changes nothing, and equal points count once. Decodes to the points that are in some group.
    """

    class Config(Tokenizer.Config):
        centres: int = Field(64, ge=1, le=65536)
        """The most groups g of a cloud."""
        neighbours: int = Field(32, ge=1, le=4096)
        """Points k of a group, its centre included."""

    axes = 3
    lossless = False
    coords_tell = True
    variants = ({"centres": 8, "neighbours": 4}, {"centres": 200, "neighbours": 100})

    def __init__(self, config: Any):
        super().__init__(config)
        self.channels = 0
        """Numbers of each point, 3 + f; 0 until they are known."""
        self.mean, self.scale = np.zeros(0), np.zeros(0)
        """m, and what each number of a point is divided by, [3+f] float64; s stands three times."""

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[np.ndarray]:
        return clouds(seed)

    def fit(self, raws: Iterable[Any]) -> None:
        found = [cloud(raw).astype(np.float64) for raw, _ in zip(raws, range(FIT_CLOUDS))]
        channels = sorted({points.shape[1] for points in found})
        if len(channels) != 1:
            told = f"have {' and '.join(map(str, channels))} numbers a point" if channels else "are missing"
            raise DataError(f"the clouds that the point_group tokenizer should learn from {told}: give one kind")
        every = np.concatenate(found)
        mean, scale = every.mean(0), every.std(0)
        away = []
        for points in found:
            places, centres, groups = self._groups(points, mean[:3])
            away.append(np.square(places[groups] - places[centres][:, None]).sum(2).mean())
        scale[:3] = np.sqrt(np.mean(away) / 3)
        self._adopt(mean, np.where(scale > 0, scale, 1.0))

    def _groups(self, points: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places [n 3]; which are centres [g], and who is in each group [g k], nearest first."""
        places = points[:, :3]
        count, k = min(self.config.centres, len(places)), self.config.neighbours
        least = np.square(places - start).sum(1)
        nearest = np.full(len(places), np.inf)
        centres: list[int] = []
        groups: list[np.ndarray] = []
        for _ in range(count):
            centre = int((least if not centres else nearest).argmax())
            if centres and nearest[centre] == 0:
                break  # the other points stand where a centre is
            away = np.square(places - places[centre]).sum(1)
            few = np.arange(len(away)) if len(away) <= k else np.sort(np.argpartition(away, k - 1)[:k])
            few = few[away[few].argsort(kind="stable")]
            centres.append(centre)
            groups.append(np.resize(few, k))
            np.minimum(nearest, away, out=nearest)
        return places, np.array(centres), np.array(groups)

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        points = cloud(raw)
        if points.shape[1] != self.channels:
            raise ValueError(
                f"the points have {points.shape[1]} numbers each, but the tokenizer takes {self.channels}: choose columns"
            )
        points = np.unique(points, axis=0).astype(np.float64)
        places, centres, groups = self._groups(points, self.mean[:3])
        shift = np.tile(self.mean, (len(centres), 1))
        shift[:, :3] = places[centres]
        vectors = (points[groups] - shift[:, None]) / self.scale
        coords = (places[centres] - self.mean[:3]) / self.scale[:3]
        return Tokens(vectors.reshape(len(centres), -1).astype(np.float32), coords.astype(np.float32))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> np.ndarray:
        """[n 3+f] float32: the points of all groups, each once. Without coords all groups stand about m."""
        check_ready(self)
        groups = np.asarray(values, np.float64).reshape(len(values), -1, self.channels).copy()
        if coords is not None:
            groups[:, :, :3] += np.asarray(coords, np.float64)[:, None]
        points = groups.reshape(-1, self.channels)
        return (points[distinct(points)] * self.scale + self.mean).astype(np.float32)

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        return [*names, write_record(folder, {"mean": self.mean.tolist(), "scale": self.scale.tolist()})]

    def restore(self, folder: Path) -> None:
        path, record = read_record(folder)
        mean, scale = numbers(path, record, "mean"), numbers(path, record, "scale", above=0)
        if not 3 <= len(mean) == len(scale):
            raise CheckpointError(f"{path}: mean and scale are of {len(mean)} and {len(scale)} numbers, not 3 or more")
        self._adopt(mean, scale)

    def _adopt(self, mean: np.ndarray, scale: np.ndarray) -> None:
        self.mean, self.scale, self.channels = mean, scale, len(mean)
        self.features = self.config.neighbours * self.channels


def cloud(raw: Any) -> np.ndarray:
    """A cloud as [n 3+f] float32; ValueError, one line: not an array, empty, too few numbers a point, not finite."""
    if not isinstance(raw, np.ndarray):
        raise ValueError(f"a cloud is an array [points 3 or more], not {type(raw).__name__}")
    if raw.ndim != 2 or raw.shape[1] < 3 or raw.dtype.kind not in "iuf":
        raise ValueError(f"a cloud is an array [points 3 or more] of numbers, not {list(raw.shape)} {raw.dtype}")
    if len(raw) == 0:
        raise ValueError("the cloud is empty: it has no points")
    points = np.asarray(raw, np.float32)
    if not np.abs(points).max() <= LARGEST:
        place = int((~(np.abs(points) <= LARGEST)).any(1).argmax())
        raise ValueError(f"point {place} of the cloud is not finite, or beyond {LARGEST:g}")
    return points


def distinct(points: np.ndarray, near: float = 1e-4) -> np.ndarray:
    """Which of points [n c] to keep so that no two are nearer than `near`, in order, [m]."""
    from scipy.spatial import cKDTree

    pairs = cKDTree(points).query_pairs(near, output_type="ndarray")
    return np.setdiff1d(np.arange(len(points)), pairs.max(1) if len(pairs) else ())


def clouds(seed: int = 0, count: int = 12, points: int = 80) -> list[np.ndarray]:
    """Points on a sphere, a box and a ring in turn, somewhere about the origin, each [n 3] float32."""
    draw = numpy_generator("clouds", seed)
    found = []
    for index in range(count):
        way = draw.standard_normal((int(draw.integers(points // 2, points + 1)), 3))
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        if index % 3 == 1:
            way /= np.abs(way).max(1, keepdims=True)
        if index % 3 == 2:
            way *= (1, 1, 0.1)
        found.append((way * draw.uniform(1, 3) + draw.uniform(-0.5, 0.5, 3)).astype(np.float32))
    return found
