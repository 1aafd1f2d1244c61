"""The plain residual.

    x <- x + f(x)

He 2015, arXiv:1512.03385. Nearly every transformer.
"""

from __future__ import annotations

from torch import Tensor

from sevenfold.blocks.residual import Branch, Residual


class Add(Residual):
    class Config(Residual.Config):
        pass

    def forward(self, x: Tensor, branch: Branch, condition: Tensor | None = None) -> Tensor:
        return x + branch(x)
