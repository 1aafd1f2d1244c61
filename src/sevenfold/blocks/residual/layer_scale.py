"""A residual whose branch is weighed channel by channel, from near zero.

    x <- x + diag(g) f(x)                                    g = initial at start, learned

Touvron 2021, arXiv:2103.17239 (CaiT). DINOv2, ConvNeXt.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.residual import Branch, Residual
from sevenfold.core.initial import Constant, Rule


class LayerScale(Residual):
    class Config(Residual.Config):
        initial: float = Field(1e-2, gt=0)
        """The value of g at the start."""

    def __init__(
        self, config: Any, width: int, index: int = 0, depth: int = 1, place: int = 0, condition: int | None = None
    ):
        super().__init__(config, width, index, depth, place, condition)
        self.weight = nn.Parameter(torch.empty(width))

    def rules(self) -> dict[str, Rule]:
        return {"weight": Constant(self.config.initial)}

    def forward(self, x: Tensor, branch: Branch, condition: Tensor | None = None) -> Tensor:
        return x + self.weight * branch(x)

    def kept(self, tokens: int) -> int:
        return tokens * self.width
