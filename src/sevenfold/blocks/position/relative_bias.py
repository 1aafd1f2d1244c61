"""A learned bias per head for each distance, distances sorted into buckets that grow with it.

    score(i, j) <- score(i, j) + sum_axis B_axis[bucket(p_j - p_i), h]
    bucket(n) = n for n < e,  e + floor(ln(n/e) / ln(most/e) (k - e)) beyond, at most k - 1;   k buckets, e = k/2

Looking both ways, half of the buckets are for what comes later. One table for all blocks of a trunk. Raffel 2019,
arXiv:1910.10683 section 2.1 (buckets as in the released code). T5, and MPNet.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.position import Position
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Normal, Rule


class RelativeBias(Position):
    class Config(Position.Config):
        buckets: int = Field(32, ge=4, le=1 << 16)
        """How many distances are told apart; even."""
        most: int = Field(128, ge=3)
        """From this distance on, all share a bucket."""
        bidirectional: bool = True
        """Tell earlier from later; without it all later tokens share bucket 0 (T5's decoder)."""

    variants = ({"buckets": 8, "most": 20}, {"bidirectional": False})

    def __init__(self, config: Any, width: int, axes: int, heads: int | None = None):
        super().__init__(config, width, axes, heads)
        if axes < 1:
            raise ConfigError("position 'relative_bias' needs tokens with coordinates; these have none: choose none")
        if config.buckets % 2 or config.most <= config.buckets // 2:
            raise ConfigError(
                f"position.buckets: {config.buckets} buckets for distances up to {config.most}: an even number, less than "
                "twice as many"
            )
        self.tables = nn.Parameter(torch.empty(axes, config.buckets, heads or 8))

    def rules(self) -> dict[str, Rule]:
        return {"tables": Normal(0.02)}

    def bias(self, query: Tensor, key: Tensor, heads: int) -> Tensor:
        if heads > self.tables.shape[2]:
            raise ConfigError(f"position 'relative_bias': made for {self.tables.shape[2]} heads, and {heads} ask")
        away = (key.unsqueeze(1) - query.unsqueeze(2)).round().long()  # [b n m c]
        buckets = self._bucket(away)
        found = [table[buckets[..., axis]] for axis, table in enumerate(self.tables)]
        return torch.stack(found).sum(0)[..., :heads].permute(0, 3, 1, 2)

    def _bucket(self, away: Tensor) -> Tensor:
        """The bucket of each distance, key minus query."""
        if self.config.bidirectional:
            count = self.config.buckets // 2
            first, distance = (away > 0) * count, away.abs()
        else:
            count = self.config.buckets
            first, distance = torch.zeros_like(away), (-away).clamp(min=0)
        exact = count // 2
        grown = (distance.clamp(min=1).float() / exact).log() / math.log(self.config.most / exact) * (count - exact)
        far = (exact + grown.long()).clamp(max=count - 1)
        return first + torch.where(distance < exact, distance, far)
