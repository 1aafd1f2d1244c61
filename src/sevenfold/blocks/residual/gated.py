"""A residual whose branch is gated channel by channel by the condition; closed at the start.

    x <- x + a(c) * f(x),    a(c) = W silu(c) + b                      W = 0, b = 0 at the start

Peebles and Xie 2022, arXiv:2212.09748 section 3.2: the alpha of adaLN-Zero, with the `adaptive` norm. DiT, SD3.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sevenfold.blocks.residual import Branch, Residual
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Constant, Rule


class Gated(Residual):
    class Config(Residual.Config):
        pass

    def __init__(
        self, config: Any, width: int, index: int = 0, depth: int = 1, place: int = 0, condition: int | None = None
    ):
        super().__init__(config, width, index, depth, place, condition)
        if condition is None:
            raise ConfigError(
                "residual: gated reads a condition, and there is none: set trunks.….condition to a stream"
            )
        self.condition = condition
        self.weight, self.bias = nn.Parameter(torch.empty(width, condition)), nn.Parameter(torch.empty(width))

    def rules(self) -> dict[str, Rule]:
        return {"weight": Constant(0.0, decays=True), "bias": Constant()}

    def forward(self, x: Tensor, branch: Branch, condition: Tensor | None = None) -> Tensor:
        if condition is None:
            raise ConfigError("residual: gated was given no condition")
        gate = F.linear(F.silu(condition), self.weight, self.bias)
        return x + gate.view(len(x), *[1] * (x.dim() - 2), self.width) * branch(x)

    def flops(self, tokens: int) -> int:
        return 2 * self.condition * self.width

    def kept(self, tokens: int) -> int:
        return tokens * self.width + self.condition + self.width
