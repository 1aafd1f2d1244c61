"""No normalization: where a list of norms leaves one out.

    y = x

The first block of ModernBERT, whose tokens come normed from the embedding: Warner 2024, arXiv:2412.13663 section 2.1.
"""

from __future__ import annotations

from torch import Tensor

from sevenfold.blocks.normalization import Norm


class NoNorm(Norm):
    class Config(Norm.Config):
        pass

    acts = False

    def forward(self, x: Tensor, condition: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        return x

    def kept(self, tokens: int) -> int:
        return 0
