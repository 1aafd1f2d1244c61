"""Every point moved a little on its own.

    y_i = x_i + d r e_i,   e_i ~ N(0, I) cut off at 3;   r: root mean square distance of the points from their middle

PointNet, arXiv:1612.00593 section 5.1 (0.02 of the size of a cloud), cut off as in the code of PointNet++.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.data.view import View
from sevenfold.data.view._items import middle, placed, points_of


class Jitter(View):
    """array [n 3+f] or [n 3 3] → array of the same shape."""

    class Config(View.Config):
        deviation: float = Field(0.02, ge=0, le=10)
        """d, the standard deviation along each axis, as a share of the size r."""

    modalities = ("points", "structure")

    def __call__(self, raw: Any, generator: np.random.Generator) -> np.ndarray:
        points = points_of(self, raw)
        places = points[..., :3]
        away = (places - middle(places)).reshape(-1, 3)
        size = np.sqrt(np.square(away[np.isfinite(away).all(1)]).sum(1).mean())
        drawn = np.clip(generator.standard_normal(places.shape), -3, 3)
        return placed(points, places + drawn * (self.config.deviation * size))
