"""Layer normalization.

    y = (x - mean(x)) / sqrt(var(x) + eps) * g + b           over the channels of each token

Ba 2016, arXiv:1607.06450. GPT-2, BERT, ViT, CLIP, ESM-2.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sevenfold.blocks.normalization import Norm
from sevenfold.core.initial import Constant, Rule


class Layer(Norm):
    class Config(Norm.Config):
        bias: bool = True
        """Whether b is there."""

    variants = ({"bias": False},)

    def __init__(self, config: Any, width: int, condition: int | None = None):
        super().__init__(config, width, condition)
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width)) if config.bias else None

    def rules(self) -> dict[str, Rule]:
        rules: dict[str, Rule] = {"weight": Constant(1.0)}
        return rules if self.bias is None else {**rules, "bias": Constant()}

    def forward(self, x: Tensor, condition: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        return F.layer_norm(x, (self.width,), self.weight, self.bias, self.config.eps)

    def kept(self, tokens: int) -> int:
        return 2 * tokens
