"""Adaptive layer normalization: scale and shift are read from the condition.

    y = layer_norm(x) * (1 + s) + t,     (s, t) = W silu(c) + b          W = 0, b = 0 at the start: plain LayerNorm

Peebles and Xie 2022, arXiv:2212.09748 section 3.2 (adaLN, zero at the start); Perez 2017, arXiv:1709.07871 (FiLM). DiT,
SD3 and most diffusion transformers. With the `gated` residual it is adaLN-Zero.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sevenfold.blocks.normalization import Norm
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Constant, Rule


class Adaptive(Norm):
    class Config(Norm.Config):
        eps: float = 1e-6
        """Added to the variance."""

    def __init__(self, config: Any, width: int, condition: int | None = None):
        super().__init__(config, width, condition)
        if condition is None:
            raise ConfigError("norm: adaptive reads a condition, and there is none: set trunks.….condition to a stream")
        self.condition = condition
        self.weight, self.bias = nn.Parameter(torch.empty(2 * width, condition)), nn.Parameter(torch.empty(2 * width))

    def rules(self) -> dict[str, Rule]:
        return {"weight": Constant(0.0, decays=True), "bias": Constant()}

    def forward(self, x: Tensor, condition: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        if condition is None:
            raise ConfigError("norm: adaptive was given no condition")
        change = F.linear(F.silu(condition), self.weight, self.bias)
        scale, shift = change.view(len(x), *[1] * (x.dim() - 2), 2 * self.width).chunk(2, -1)
        return F.layer_norm(x, (self.width,), eps=self.config.eps) * (1 + scale) + shift

    def flops(self, tokens: int) -> int:
        return 2 * self.condition * 2 * self.width

    def kept(self, tokens: int) -> int:
        return tokens * (self.width + 2) + self.condition + self.width
