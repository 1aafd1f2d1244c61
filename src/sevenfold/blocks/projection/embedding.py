"""Ids to vectors: row i of a table, which is the linear map of the one-hot vector of i.

    y = E[i]                            E ~ N(0, 0.02^2)

Bengio 2003, jmlr.org/papers/v3/bengio03a.html section 2. Token embeddings of GPT-2, BERT, Llama, ESM-2.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sevenfold.blocks.projection import Projection
from sevenfold.core.initial import Normal, Rule


class Embedding(Projection):
    """forward(ids [b n]) → [b n width_out]; width_in is the number of ids. `weight` is [width_in width_out]."""

    class Config(Projection.Config):
        pass

    reads_ids = True

    def __init__(self, config: Any, width_in: int, width_out: int):
        super().__init__(config, width_in, width_out)
        self.weight = nn.Parameter(torch.empty(width_in, width_out))

    def rules(self) -> dict[str, Rule]:
        return {"weight": Normal(self.config.std or 0.02, decays=True)}

    @torch.no_grad()
    def start_from(self, vectors: Tensor) -> None:
        """Begin with a random projection of what ids stand for, vectors [width_in p]: like ids start alike."""
        spread = (vectors - vectors.mean(0)) / vectors.std().clamp(min=1e-6)
        turned = spread @ torch.randn(vectors.shape[1], self.width_out) * vectors.shape[1] ** -0.5
        self.weight.mul_(0.5).add_(turned * (self.config.std or 0.02))

    def forward(self, x: Tensor) -> Tensor:
        return F.embedding(x, self.weight)

    def flops(self, tokens: int) -> int:
        return 0
