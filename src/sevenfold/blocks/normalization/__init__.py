"""Normalization: keeps the size of activations where kernels and gradients are well.

The contract of this room: forward(x [… d], condition [b d'] or None) → [… d], token by token unless its header says else.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from sevenfold.core import part


class Norm(part.Part, nn.Module):
    """A normalization of vectors of one width."""

    room = "normalization"

    class Config(part.Config):
        eps: float = Field(1e-5, gt=0, lt=1)
        """Added to the variance."""

    def __init__(self, config: Any, width: int):
        super().__init__()
        self.config, self.width = config, width

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        raise NotImplementedError
