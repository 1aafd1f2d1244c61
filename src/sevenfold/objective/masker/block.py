"""One block of tokens hidden: those nearest to a random place, in a box of random shape.

    s_i = 1 / (1 + d_i),   d_i = max_a |x_ia - z_a| / (e_a r_a)
    z a random token's place, e the item's extent along axis a, log r_a ~ U(-1/2, 1/2) log(aspect)

After Bao 2021 (BEiT), arXiv:2106.08254 algorithm 1, and I-JEPA's blocks, arXiv:2301.08243 section 3. A rectangle of a
picture, a box of a cloud, a run of a series; the number is exact, so the last row or column of a block may be in part.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from sevenfold.objective.masker import Masker
from sevenfold.objective.masker._block import distances


class Block(Masker):
    class Config(Masker.Config):
        aspect: float = Field(3.0, ge=1)
        """How many times as long along one axis as along another a block may be, beside the item's own shape."""

    axes = 1

    def scores(self, coords: Tensor, eligible: Tensor) -> Tensor:
        return (1 / (1 + distances(coords, eligible, self.config.aspect))).float()
