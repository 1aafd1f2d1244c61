"""A cloud of fewer points, as a sensor further away would see it.

    y: round(s n) of the n points, each as likely;   s ~ U(share)

PointNet++, arXiv:1706.02413 section 3.3 (random input dropout). The order of those that stay is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sevenfold.data.view import View
from sevenfold.data.view._items import points_of
from sevenfold.data.view._ranges import Shares


class DropPoints(View):
    """array [n 3+f] → array [m 3+f], 1 <= m <= n."""

    class Config(View.Config):
        share: Shares = (0.5, 1.0)
        """The least and the largest share s of points that stay."""

    modalities = ("points",)

    def __call__(self, raw: Any, generator: np.random.Generator) -> np.ndarray:
        points = points_of(self, raw)
        stay = max(1, round(float(generator.uniform(*self.config.share)) * len(points)))
        return points[np.sort(generator.permutation(len(points))[:stay])]
