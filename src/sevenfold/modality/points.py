"""Point clouds: an array [points 3 or more] becomes groups of points along three axes, each at its centre.

By default groups of 32 about 64 centres (`point_group`), read by a small network (`point_net`), as in Point-MAE. The
coordinates are real numbers: choose positions that take them (coordinate_mlp, sinusoidal, axial_rotary).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sevenfold.blocks.projection import Projection
from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization.point_group import cloud
from sevenfold.core import part
from sevenfold.core.errors import DataError
from sevenfold.data.source.points import read_cloud
from sevenfold.modality import Augmentation, Modality, Suggestion
from sevenfold.modality._drawn import scatter, shades
from sevenfold.modality._features import Features, statistics
from sevenfold.modality._strings import spread

CELLS = 24
"""Columns of a cloud in a terminal."""


class Points(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("point_group")
        """How raw items become tokens."""
        projection: Projection.Config | None = None
        """How tokens become vectors of the model's width: `point_net` reads a group as a set of points (its `channels`
        are the numbers of a point), `patch_embed`, the default, as a list."""

    axes = ("x", "y", "z")

    def check(self, raw: Any) -> np.ndarray:
        """[n 3+f] float32, from an array of numbers."""
        return cloud(raw)

    def summary(self, raws: Sequence[Any]) -> dict[str, Any]:
        if not raws:
            return {"items": 0}
        found = [self.check(raw) for raw in raws]
        channels = Counter(points.shape[1] for points in found)
        sizes = [float(np.ptp(points[:, :3], axis=0).max()) for points in found]
        return {
            "items": len(found),
            "points, least / median / most": spread([len(points) for points in found]),
            "numbers a point": ", ".join(f"{count} in {times}" for count, times in sorted(channels.items())),
            "longest side, least / median / most": spread([round(size, 4) for size in sizes]),
        }

    def features(self, train: Sequence[Any]) -> tuple[Features, ...]:
        """How many points there are, statistics of each of their numbers, and how x, y and z vary together."""
        numbers = min((raw.shape[1] for raw in train), default=3)

        def told(raws: Sequence[np.ndarray]) -> np.ndarray:
            rows = []
            for raw in raws:
                around = (raw[:, :3] - raw[:, :3].mean(0)).astype(np.float64)
                together = (around.T @ around / len(raw))[np.triu_indices(3)]
                columns = [statistics(column) for column in raw[:, :numbers].T.astype(np.float64)]
                rows.append(np.concatenate([[np.log(len(raw))], together, *columns]))
            return np.stack(rows).astype(np.float32)

        return (Features("statistics of the points", told),)

    def html(self, raw: Any) -> str:
        """The cloud from above (x, y) and from the front (x, z)."""
        points = np.nan_to_num(np.asarray(raw, np.float64))
        return scatter(points, f"cloud of {len(points)} points")

    def plain(self, raw: Any) -> str:
        """How many points are in each cell, seen from the front (x, z)."""
        points = np.nan_to_num(np.asarray(raw, np.float64))
        counts, _, _ = np.histogram2d(-points[:, 2], points[:, 0], bins=(CELLS // 2, CELLS))
        return shades(counts)

    def file(self, raw: Any) -> tuple[str, bytes]:
        """(".xyz", a point a line)."""
        lines = [" ".join(f"{number:.6g}" for number in point) for point in np.asarray(raw, np.float64).tolist()]
        return ".xyz", ("\n".join(lines) + "\n").encode()

    def typed(self, text: str) -> np.ndarray:
        """The cloud in the file of that name (.xyz, .npy, .ply, .obj, .off)."""
        try:
            return self.check(read_cloud(text))
        except DataError as error:
            raise ValueError(str(error)) from None

    def edits(self, raw: Any, draw: np.random.Generator) -> dict[str, np.ndarray]:
        """Turned by 10 degrees about z through the mean, moved, reordered, each point shaken a little, one point taken out."""
        points = self.check(raw)
        mean, angle = points[:, :3].mean(0), np.pi / 18
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        size = float(points[:, :3].std()) or 1.0

        def moved(places: np.ndarray) -> np.ndarray:
            return np.concatenate([places, points[:, 3:]], axis=1).astype(np.float32)

        edits = {
            "points reordered": points[draw.permutation(len(points))],
            "turned by 10 degrees about z": moved((points[:, :3] - mean) @ turn.T + mean),
            "every point moved by 1 % of the size": moved(
                points[:, :3] + draw.normal(0, 0.01 * size, (len(points), 3))
            ),
        }
        if len(points) > 1:
            edits["one point taken out"] = np.delete(points, int(draw.integers(len(points))), axis=0)
        return edits

    def error(self, raw: Any, back: Any) -> float:
        """Chamfer distance of the places: the mean distance from a point to the nearest of the other cloud, both ways,
        halved."""
        from scipy.spatial import cKDTree

        one, other = (np.asarray(points, np.float64)[:, :3] for points in (self.check(raw), back))
        if not len(other):
            return float("inf")
        return float((cKDTree(other).query(one)[0].mean() + cKDTree(one).query(other)[0].mean()) / 2)

    error_unit = "Chamfer distance, in the cloud's unit"

    def augmentation(self) -> Augmentation:
        """Turned about z, a little larger or smaller, points moved and left out; pieces are what is near a point."""
        change = ({"kind": "rotate"}, {"kind": "rescale"}, {"kind": "jitter"})
        return Augmentation(
            ({"kind": "drop_points", "share": (0.6, 1.0)}, *change),
            ({"kind": "crop_points", "share": (0.2, 0.5)}, *change),
        )

    @classmethod
    def suggest(cls, name: str, raws: Sequence[Any], items: int) -> Suggestion | None:
        """Groups of up to 32 points, enough of them to cover a cloud; hidden ones are rebuilt from the visible."""
        sizes = [cloud(raw).shape for raw in raws]
        if not sizes:
            return None
        points, channels = int(np.median([size[0] for size in sizes])), sizes[0][1]
        near = int(np.clip(points // 16, 4, 32))
        centres = int(np.clip(2 * points // near, 8, 64))
        tower = {"inputs": [name], "position": "coordinate_mlp"}
        return Suggestion(
            stream={
                "kind": "points",
                "tokenizer": {"kind": "point_group", "centres": centres, "neighbours": near},
                "projection": {"kind": "point_net", "channels": channels},
            },
            trunks={"enc": {**tower, "class_token": True}, "dec": {**tower, "inputs": ["enc"]}},
            objective={"kind": "mae", "ratio": 0.6},
            train={"batch": 64},
            tokens=float(min(centres, points)),
            why=[
                f"{name}: {centres} groups of {near} neighbouring points, about clouds of {points}",
                f"{name}: hidden groups are rebuilt from the visible ones (masked autoencoding), which needs no labels",
            ],
            tower={**tower, "block": {"dropout": 0.1}},
        )
