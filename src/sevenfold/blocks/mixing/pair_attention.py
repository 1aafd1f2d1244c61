"""Self-attention of tokens whose scores are biased by the pair representation, with a gate on what comes out.

    y = sigmoid(x W_g + b_g) * softmax(Q K^T / sqrt(d_h) + norm(z) W_b) V,   Q K V = x W_qkv,   out = y W_o

z_ij [p] is the pair of tokens i and j. Abramson 2024, doi:10.1038/s41586-024-07487-w, supplement, algorithm 24; ESMFold, Lin
2023, doi:10.1126/science.ade2574. AlphaFold 3's Pairformer, ESMFold, Boltz-1. Cost O(n^2 (d + p h)).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from sevenfold.blocks.mixing import Project
from sevenfold.blocks.mixing._gated import Gated
from sevenfold.core.types import Hidden, Mask


class PairAttention(Gated):
    class Config(Gated.Config):
        pair_width: int | None = Field(None, ge=1)
        """Width of the pair representation; by default that of the trunk's."""

    needs = frozenset({"pair"})
    variants = ({"heads": 3, "head_width": 10, "pair_width": 20},)

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project, config.pair_width or width)

    def weights(self, hidden: Hidden, mask: Mask = Mask(), rows: Tensor | None = None) -> Tensor:  # noqa: B008
        weights = self._weights(hidden, mask)
        return weights if rows is None else weights[:, :, rows]
