"""A dense linear map of which some outputs have no bias.

    y = W x + [b_1, 0, b_2]             W ~ N(0, min(0.02, width_in^-1/2)^2), b = 0

A bias on keys adds the same to all scores of a query, which softmax forgets; so some leave it out, and queries and values
have theirs. Bao 2021 (BEiT), arXiv:2106.08254; Whisper, arXiv:2212.04356; DINOv3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sevenfold.blocks.projection._product import linear
from sevenfold.blocks.projection.linear import Linear
from sevenfold.core.errors import ConfigError


class PartialBias(Linear):
    class Config(Linear.Config):
        bias: bool = True
        """Whether b is there."""
        without: tuple[int, int] = (0, 0)
        """From which output to which (not included) there is none: [d, 2d] are the keys among queries, keys and values."""

    sides = {}
    variants = ({"without": (8, 30)}, {"bias": False, "std": 0.02})

    def __init__(self, config: Any, width_in: int, width_out: int):
        super().__init__(config, width_in, width_out)
        self.start, self.stop = config.without
        if not 0 <= self.start <= self.stop <= width_out:
            raise ConfigError(f"projection.without: {list(config.without)} is no range of the {width_out} outputs")
        if self.bias is not None:
            self.bias = nn.Parameter(torch.empty(width_out - (self.stop - self.start)))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, *self.matrix())

    def matrix(self, table: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        if self.bias is None:
            return self.weight, None
        none = self.bias.new_zeros(self.stop - self.start)
        return self.weight, torch.cat([self.bias[: self.start], none, self.bias[self.start :]])
