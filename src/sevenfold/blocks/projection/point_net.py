"""Groups of points to vectors, by a small network that reads points as a set.

    h_j = W_2 relu(W_1 p_j),   g = max_j h_j,   y = max_j (W_4 relu(W_3 [g; h_j]))            p_j in R^c, with biases

A token is k points laid end to end, x in R^(k*c); their order does not matter. Qi 2016 (PointNet), arXiv:1612.00593, in
the form of Point-BERT, arXiv:2111.14819, and Point-MAE, arXiv:2203.06604 section 3.1 (widths 128, 256, 512), without
their batch norms, so that a token does not depend on the others of its batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.projection import Projection
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Constant, Normal, Rule


class PointNet(Projection):
    """forward(x [… k*c]) → [… width_out]."""

    class Config(Projection.Config):
        channels: int = Field(3, ge=1, le=1024)
        """Numbers c of each point."""
        hidden: int = Field(64, ge=1, le=8192)
        """Width of W_1's output; W_2 gives twice that, W_3 four times."""

    dense = False
    variants = ({"channels": 4, "hidden": 8},)

    def __init__(self, config: Any, width_in: int, width_out: int):
        super().__init__(config, width_in, width_out)
        if width_in % config.channels:
            raise ConfigError(
                f"projection 'point_net': a token of {width_in} numbers is not made of points of {config.channels}: "
                "set channels to what the tokenizer's points have"
            )
        narrow = config.hidden
        sizes = ((config.channels, narrow), (narrow, 2 * narrow), (4 * narrow, 4 * narrow), (4 * narrow, width_out))
        self.points = width_in // config.channels
        self.weights = nn.ParameterList([torch.empty(into, out_of) for out_of, into in sizes])
        self.biases = nn.ParameterList([torch.empty(into) for _, into in sizes])

    def rules(self) -> dict[str, Rule]:
        found: dict[str, Rule] = {}
        for place, weight in enumerate(self.weights):
            std = self.config.std or (2.0 if place in (0, 2) else 1.0) ** 0.5 * weight.shape[1] ** -0.5
            found |= {f"weights.{place}": Normal(std, decays=True), f"biases.{place}": Constant()}
        return found

    def forward(self, x: Tensor) -> Tensor:
        first, second, third, last = zip(self.weights, self.biases)
        points = x.unflatten(-1, (self.points, self.config.channels))
        each = F.linear(F.linear(points, *first).relu(), *second)
        whole = each.amax(-2, keepdim=True).expand_as(each)
        return F.linear(F.linear(torch.cat([whole, each], -1), *third).relu(), *last).amax(-2)

    def flops(self, tokens: int) -> int:
        return 2 * tokens * self.points * sum(weight.numel() for weight in self.weights)

    def kept(self, tokens: int) -> int:
        narrow, out = self.config.hidden, self.width_out
        return tokens * (self.points * (11 * narrow + out) + 2 * narrow + out)
