"""A cloud or a structure turned about an axis through its middle, or in any way.

    y = m + R(a) (x - m),   a ~ U(-degrees, degrees) about the axis;   without one, R uniform over all rotations

For clouds that stand on the ground: about z, as PointNet, arXiv:1612.00593 section 5.1. Uniform rotations by quaternions:
Shoemake 1992, doi:10.1016/B978-0-08-050755-2.50036-1. Whatever else is known of a point (velocity, intensity) stays as it is.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from sevenfold.data.view import View
from sevenfold.data.view._items import middle, placed, points_of


class Rotate(View):
    """array [n 3+f] or [n 3 3] → array of the same shape."""

    class Config(View.Config):
        axis: tuple[float, float, float] | None = (0.0, 0.0, 1.0)
        """The axis that it is turned about (x, y, z); null: any rotation."""
        degrees: float = Field(180.0, ge=0, le=180)
        """The most it is turned about the axis, either way."""

        @model_validator(mode="after")
        def _axis(self) -> Self:
            if self.axis is not None and not any(self.axis):
                raise ValueError("axis: 0, 0, 0 is no direction")
            return self

    modalities = ("points", "structure")

    def __call__(self, raw: Any, generator: np.random.Generator) -> np.ndarray:
        points = points_of(self, raw)
        if self.config.axis is None:
            quaternion = generator.standard_normal(4)
        else:
            half = np.deg2rad(generator.uniform(-1, 1) * self.config.degrees) / 2
            axis = np.array(self.config.axis) / np.linalg.norm(self.config.axis)
            quaternion = np.append(np.cos(half), np.sin(half) * axis)
        m = middle(points[..., :3])
        return placed(points, (points[..., :3] - m) @ rotation(quaternion).T + m)


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """R [3 3] of a quaternion (w, x, y, z) of any length but 0."""
    w, x, y, z = (quaternion / np.linalg.norm(quaternion)).tolist()
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
