"""Residuals: how a branch's output joins the stream that it was computed from.

The contract of this room. `forward(x, branch)` calls the branch itself, so that a residual can skip it, widen the
stream around it or weigh what comes back; `condition` [b d'] is read by adaptive ones. `enter` and `leave` stand at the two ends of a trunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sevenfold.core import part
from sevenfold.core.initial import Ruled

Branch = Callable[[Tensor], Tensor]


class Residual(part.Part, Ruled):
    """The residual around one branch of block `index` of `depth`."""

    room = "residual"

    class Config(part.Config):
        pass

    def __init__(self, config: Any, width: int, index: int = 0, depth: int = 1):
        super().__init__()
        self.config, self.width, self.index, self.depth = config, width, index, depth

    def forward(self, x: Tensor, branch: Branch, condition: Tensor | None = None) -> Tensor:
        """x [b n d], branch: [b n d] → [b n d]; returns the stream after it."""
        raise NotImplementedError

    def enter(self, x: Tensor) -> Tensor:
        """What the stream is before the first block, from the embeddings [b n d]."""
        return x

    def leave(self, x: Tensor) -> Tensor:
        """The representation [b n d], from the stream after the last block."""
        return x

    def kept(self, tokens: int) -> int:
        """Numbers that it keeps for the backward pass over `tokens` tokens, beside what the branch keeps, by formula."""
        return 0
