"""A dense linear map.

    y = W x + b                         W ~ N(0, min(0.02, width_in^-1/2)^2), b = 0

Rosenblatt 1958, doi:10.1037/h0042519; the size of the first weights is that of GPT-2 (0.02). Query, key, value, output, up, down,
gate and head projections of every published transformer. Attention with heads of width d/h has 4 d^2 weights, whatever
the number of heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sevenfold.blocks.projection import Projection
from sevenfold.blocks.projection._float8 import fits, linear8
from sevenfold.blocks.projection._product import linear
from sevenfold.core.initial import Constant, Normal, Rule


class Linear(Projection):
    class Config(Projection.Config):
        bias: bool = False
        """Whether b is there."""

    sides = {"weight": (0, 1), "bias": (0, None)}
    variants = ({"bias": True}, {"std": 0.02})

    def __init__(self, config: Any, width_in: int, width_out: int):
        super().__init__(config, width_in, width_out)
        self.weight = nn.Parameter(torch.empty(width_out, width_in))
        self.bias = nn.Parameter(torch.empty(width_out)) if config.bias else None
        self.float8 = False

    def rules(self) -> dict[str, Rule]:
        weight: Rule = Normal(self.config.std or min(0.02, self.width_in**-0.5), decays=True)
        return {"weight": weight} | ({} if self.bias is None else {"bias": Constant()})

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias if self.bias is None or self.added == 1 else self.bias / self.added
        if self.float8 and self.training and torch.is_autocast_enabled(x.device.type):  # what is kept wide stays so
            return linear8(x, self.weight, bias)
        return linear(x, self.weight, bias)

    def to_float8(self) -> bool:
        self.float8 = fits(*self.weight.shape)
        return self.float8

    def matrix(self, table: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return self.weight, self.bias
