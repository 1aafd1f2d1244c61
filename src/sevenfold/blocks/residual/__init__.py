"""Residuals: how a branch's output joins the stream that it was computed from.

The contract of this room. `forward(x, branch)` calls the branch itself, so that a residual can skip it, widen the
stream around it or weigh what comes back; `condition` [b d'] is read by adaptive ones. `enter` and `leave` stand at the
two ends of a trunk; between them a residual of several `streams` carries [b n s d].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sevenfold.core import part
from sevenfold.core.initial import Ruled

Branch = Callable[[Tensor], Tensor]


class Residual(part.Part, Ruled):
    """The residual around branch number `place` of block `index` of `depth`. `condition` is the width of the condition,
    None where there is none."""

    room = "residual"

    class Config(part.Config):
        pass

    streams: int = 1
    """How many copies of the stream run between `enter` and `leave`; all blocks of a trunk have the same."""

    def __init__(
        self, config: Any, width: int, index: int = 0, depth: int = 1, place: int = 0, condition: int | None = None
    ):
        super().__init__()
        self.config, self.width, self.index, self.depth, self.place = config, width, index, depth, place

    def forward(self, x: Tensor, branch: Branch, condition: Tensor | None = None) -> Tensor:
        """x [b n d] (or [b n s d]), branch: [b n d] → [b n d]; returns the stream after it."""
        raise NotImplementedError

    def enter(self, x: Tensor) -> Tensor:
        """What the stream is before the first block, from the embeddings [b n d]."""
        return x

    def leave(self, x: Tensor) -> Tensor:
        """The representation [b n d], from the stream after the last block."""
        return x

    def flops(self, tokens: int) -> int:
        """Multiply-adds ×2 of its own matrix products for one row of `tokens` tokens, by formula."""
        return 0

    def kept(self, tokens: int) -> int:
        """Numbers that it keeps for the backward pass over one row of `tokens` tokens, beside the stream that is given to
        it and what the branch keeps, by formula."""
        return 0
