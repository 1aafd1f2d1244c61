"""A cloud grown or shrunk about its middle.

    y = m + f (x - m),   log f ~ U(log low, log high)

PointNet++, arXiv:1706.02413 (0.8 ... 1.25 in its code); Point-MAE, arXiv:2203.06604 section 4.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sevenfold.data.view import View
from sevenfold.data.view._items import factor, middle, placed, points_of
from sevenfold.data.view._ranges import Range


class Rescale(View):
    """array [n 3+f] → array of the same shape."""

    class Config(View.Config):
        factor: Range = (0.8, 1.25)
        """The least and the largest f."""

    modalities = ("points",)

    def __call__(self, raw: Any, generator: np.random.Generator) -> np.ndarray:
        points = points_of(self, raw)
        m = middle(points[..., :3])
        return placed(points, (points[..., :3] - m) * float(factor(generator, *self.config.factor)) + m)
