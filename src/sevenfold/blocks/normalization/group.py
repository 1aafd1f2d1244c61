"""Group normalization of each token: its channels in groups, each group to mean 0 and variance 1.

    y_c = (x_c - mean(group of c)) / sqrt(var(group of c) + eps) * g_c + b_c

Wu and He 2018, arXiv:1803.08494 eq. 1-7, whose statistics are over the pixels of a picture too; here they are over one
token, so that tokens stay apart (as in the heads' norm of RetNet, RWKV and Mamba 2). With one group it is LayerNorm.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.normalization import Norm
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Constant, Rule


class Group(Norm):
    class Config(Norm.Config):
        groups: int = Field(8, ge=1)
        """How many groups; the width must be a multiple."""

    variants = ({"groups": 2}, {"groups": 1})

    def __init__(self, config: Any, width: int, condition: int | None = None):
        super().__init__(config, width, condition)
        if width % config.groups:
            raise ConfigError(f"norm.groups: {config.groups} groups do not divide the width {width}")
        self.weight, self.bias = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width))

    def rules(self) -> dict[str, Rule]:
        return {"weight": Constant(1.0), "bias": Constant()}

    def forward(self, x: Tensor, condition: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        flat = x.reshape(-1, self.width)
        return F.group_norm(flat, self.config.groups, self.weight, self.bias, self.config.eps).view_as(x)

    def kept(self, tokens: int) -> int:
        return 2 * tokens * self.config.groups
