"""A part of a cloud: the points nearest to one of them.

    y: the round(s n) points with the least |x_i - x_a|,   a ~ U{1 ... n},  s ~ U(share)

Crops in contrast of clouds: Zhang 2021 (DepthContrast), arXiv:2101.02691 section 3.3. The order
of those that stay is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sevenfold.data.view import View
from sevenfold.data.view._items import points_of
from sevenfold.data.view._ranges import Shares


class CropPoints(View):
    """array [n 3+f] → array [m 3+f], 1 <= m <= n."""

    class Config(View.Config):
        share: Shares = (0.4, 0.9)
        """The least and the largest share s of points that stay."""

    modalities = ("points",)

    def __call__(self, raw: Any, generator: np.random.Generator) -> np.ndarray:
        points = points_of(self, raw)
        stay = max(1, round(float(generator.uniform(*self.config.share)) * len(points)))
        from_it = points[:, :3] - points[int(generator.integers(len(points))), :3]
        far = np.einsum("ij,ij->i", from_it, from_it)
        return points[np.sort(np.argsort(far, kind="stable")[:stay])]
