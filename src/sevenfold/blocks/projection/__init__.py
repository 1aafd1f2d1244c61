"""Projections: what takes vectors (or ids) of one width to vectors of another. Everything else is built on them."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from sevenfold.core import part


class Projection(part.Part, nn.Module):
    """forward(x [… width_in]) → [… width_out]. `weight` is its matrix, [width_out width_in]."""

    room = "projection"

    class Config(part.Config):
        std: float | None = Field(None, gt=0)
        """Standard deviation of the initial weights; by default 1 / sqrt(width_in)."""

    weight: Tensor

    def __init__(self, config: Any, width_in: int, width_out: int):
        super().__init__()
        self.config, self.width_in, self.width_out = config, width_in, width_out

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def flops(self, tokens: int) -> int:
        """Multiply-adds ×2 of one forward pass over `tokens` vectors, by formula."""
        return 2 * tokens * self.width_in * self.width_out
