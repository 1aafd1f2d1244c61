"""Ids to vectors: row i of a table, which is the linear map of the one-hot vector of i.

    y = E[i]                            E ~ N(0, 0.02^2)

Token embeddings of GPT-2, BERT, Llama, ESM-2.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sevenfold.blocks.projection import Projection


class Embedding(Projection):
    """forward(ids [b n]) → [b n width_out]; width_in is the number of ids. `weight` is [width_in width_out]."""

    class Config(Projection.Config):
        pass

    def __init__(self, config: Any, width_in: int, width_out: int):
        super().__init__(config, width_in, width_out)
        self.weight = nn.Parameter(torch.empty(width_in, width_out))
        nn.init.normal_(self.weight, std=config.std or 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return F.embedding(x, self.weight)

    def flops(self, tokens: int) -> int:
        return 0
