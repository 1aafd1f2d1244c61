"""A residual with fixed weights on the stream and on the branch.

    x <- alpha x + beta f(x)

DeepNet's alpha, Wang 2022, arXiv:2203.00555 (with post-norm); beta = 1/sqrt(2 depth) keeps the stream's variance near 1.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from sevenfold.blocks.residual import Branch, Residual


class Scaled(Residual):
    class Config(Residual.Config):
        alpha: float = Field(1.0, gt=0)
        """Weight of the stream."""
        beta: float | None = Field(None, gt=0)
        """Weight of the branch; by default 1/sqrt(2 depth)."""

    variants = ({"alpha": 2.0, "beta": 0.5},)

    def forward(self, x: Tensor, branch: Branch, condition: Tensor | None = None) -> Tensor:
        beta = self.config.beta or (2 * self.depth) ** -0.5
        return self.config.alpha * x + beta * branch(x)
