"""Batch normalization over the valid tokens of a batch.

    y = (x - m) / sqrt(v + eps) * g + b          m, v of each channel over all valid tokens of the batch
    in evaluation: running means of m and v,     r <- (1 - momentum) r + momentum m      (v unbiased there)

Ioffe and Szegedy 2015, arXiv:1502.03167 algorithms 1 and 2. PatchTST; the ends of probes and of JEPA and BYOL heads.
In training every token sees the statistics of all others, later ones and other rows too: under a causal mask the training
loss peeks by that much (held-out loss and generation do not), and pieces of a batch (`accumulate`) are normalized apart.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.normalization import Norm
from sevenfold.core import ranks
from sevenfold.core.initial import Constant, Rule
from sevenfold.core.types import wide


class Batch(Norm):
    class Config(Norm.Config):
        momentum: float = Field(0.1, gt=0, le=1)
        """Weight of the newest batch in the running statistics."""

    across = True
    variants = ({"momentum": 0.5},)
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, config: Any, width: int, condition: int | None = None):
        super().__init__(config, width, condition)
        self.weight, self.bias = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def rules(self) -> dict[str, Rule]:
        return {"weight": Constant(1.0), "bias": Constant()}

    def forward(self, x: Tensor, condition: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        if self.training:
            mean, variance = self._statistics(wide(x), valid)
        scale = self.weight * (variance + self.config.eps).rsqrt()
        return (wide(x) * scale + (self.bias - mean * scale)).to(x.dtype)

    def _statistics(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and (biased) variance of each channel over valid tokens; the running ones follow them."""
        weight = x.new_ones(x.shape[:-1]) if valid is None else valid.to(x.dtype)
        while weight.dim() < x.dim():
            weight = weight.unsqueeze(-1)
        over, others = tuple(range(x.dim() - 1)), ranks.data()
        count = others.all_reduce_no_grad(weight.expand(*x.shape[:-1], 1).sum()).clamp(min=1)
        mean = others.all_reduce((x * weight).sum(over)) / count
        variance = others.all_reduce(((x - mean).square() * weight).sum(over)) / count
        with torch.no_grad():
            share = self.config.momentum
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)
        return mean, variance

    def kept(self, tokens: int) -> int:
        return tokens * (self.width + 1)
