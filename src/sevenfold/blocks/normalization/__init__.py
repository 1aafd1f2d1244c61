"""Normalization: keeps the size of activations where kernels and gradients are well.

The contract of this room: forward(x [b … d], condition [b d'] or None, valid [b n] or None) → [b … d], token by token
unless its header says else. `condition` is read by adaptive norms, `valid` by those that take statistics over tokens.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from sevenfold.core import part
from sevenfold.core.initial import Ruled


class Norm(part.Part, Ruled):
    """A normalization of vectors of one width. `condition` is the width of the condition, None where there is none."""

    room = "normalization"

    class Config(part.Config):
        eps: float = Field(1e-5, gt=0, lt=1)
        """Added to the variance."""

    acts: ClassVar[bool] = True
    """Whether it does anything: `none` gives what it is given."""
    across: ClassVar[bool] = False
    """Whether, in training, a row sees statistics of the others."""

    def __init__(self, config: Any, width: int, condition: int | None = None):
        super().__init__()
        self.config, self.width = config, width

    def forward(self, x: Tensor, condition: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def flops(self, tokens: int) -> int:
        """Multiply-adds ×2 of the matrix products for one row of `tokens` tokens, by formula."""
        return 0

    def kept(self, tokens: int) -> int:
        """Numbers kept for the backward pass over one row of `tokens` tokens, beside what is given to it, by formula."""
        raise NotImplementedError
