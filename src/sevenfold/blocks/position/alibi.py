"""ALiBi: attention scores fall linearly with distance, at a fixed slope per head.

    score(i, j) <- score(i, j) - m_h |p_i - p_j|,   m_h = 2^(-8h/H), h = 1 … H

For H that is not a power of two: the slopes of the power below, then every other slope of twice that. Press 2021,
arXiv:2108.12409. BLOOM, MPT. With several axes the distance is their sum.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sevenfold.blocks.position import Position


def slopes(heads: int) -> list[float]:
    """m_h for h = 1 … heads."""
    power = 2 ** math.floor(math.log2(heads))
    own = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    between = [2 ** (-4 * h / power) for h in range(1, 2 * power + 1, 2)]
    return (own + between)[:heads]


class Alibi(Position):
    class Config(Position.Config):
        pass

    def bias(self, query: Tensor, key: Tensor, heads: int) -> Tensor:
        distance = (query.unsqueeze(2) - key.unsqueeze(1)).abs().sum(-1).float()  # [b n m]
        return -distance.unsqueeze(1) * torch.tensor(slopes(heads), device=query.device).view(1, heads, 1, 1)
