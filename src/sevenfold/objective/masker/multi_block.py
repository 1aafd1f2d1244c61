"""Several blocks of tokens hidden, wherever they fall: they may overlap.

    s_i = max_k 1 / (1 + d_ik),   d_ik = distance of token i to block k's place in block k's box (see block)

Assran 2023 (I-JEPA), arXiv:2301.08243 section 3; Bao 2021 (BEiT), arXiv:2106.08254 algorithm 1, which adds blocks until
enough is hidden. The blocks grow together until the number is exact.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.objective.masker import Masker
from sevenfold.objective.masker._block import distances


class MultiBlock(Masker):
    class Config(Masker.Config):
        blocks: int = Field(4, ge=1, le=64)
        """How many blocks."""
        aspect: float = Field(3.0, ge=1)
        """How many times as long along one axis as along another a block may be, beside the item's own shape."""

    axes = 1
    variants = ({"blocks": 2},)

    def scores(self, coords: Tensor, eligible: Tensor) -> Tensor:
        away = [distances(coords, eligible, self.config.aspect) for _ in range(self.config.blocks)]
        return (1 / (1 + torch.stack(away).amin(0))).float()
