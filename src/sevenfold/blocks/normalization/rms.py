"""Root-mean-square normalization.

    y = x / sqrt(mean(x^2) + eps) * g                        over the channels of each token, in float32

Zhang and Sennrich 2019, arXiv:1910.07467. T5, Llama, Mistral, Qwen, OLMo 2.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sevenfold.blocks.normalization import Norm
from sevenfold.core.initial import Constant, Rule
from sevenfold.core.types import wide


class RMS(Norm):
    class Config(Norm.Config):
        eps: float = 1e-6
        """Added to the mean square."""

    def __init__(self, config: Any, width: int, condition: int | None = None):
        super().__init__(config, width, condition)
        self.weight = nn.Parameter(torch.empty(width))

    def rules(self) -> dict[str, Rule]:
        return {"weight": Constant(1.0)}

    def forward(self, x: Tensor, condition: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        return F.rms_norm(wide(x), (self.width,), wide(self.weight), self.config.eps).to(x.dtype)

    def kept(self, tokens: int) -> int:
        return tokens * (self.width + 1)  # a fused kernel keeps less
