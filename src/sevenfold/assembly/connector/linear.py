"""One dense map between two trunks.

    y = W x + b                         W ~ N(0, min(0.02, width_in^-1/2)^2), b = 0

LLaVA's first version, arXiv:2304.08485 eq. 1; ViT-MAE's decoder, arXiv:2111.06377.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sevenfold.assembly.connector import Connector
from sevenfold.core.initial import Constant, Normal, Rule


class LinearConnector(Connector):
    class Config(Connector.Config):
        bias: bool = True
        """Whether b is there."""

    variants = ({"bias": False},)

    def __init__(self, config: Any, width_in: int, width_out: int):
        super().__init__(config, width_in, width_out)
        self.weight = nn.Parameter(torch.empty(width_out, width_in))
        self.bias = nn.Parameter(torch.empty(width_out)) if config.bias else None

    def rules(self) -> dict[str, Rule]:
        weight: Rule = Normal(min(0.02, self.width_in**-0.5), decays=True)
        return {"weight": weight} | ({} if self.bias is None else {"bias": Constant()})

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def flops(self, tokens: int) -> int:
        return 2 * tokens * self.width_in * self.width_out
