"""How a teacher's scores become probabilities, so that no prototype takes all and none is left.

The contract of this room. What one learns stands in buffers, which are changed by `after_step` only, once per optimizer step,
from what `forward` has seen in training since `forget`. So a batch may come in pieces, a step that is not taken leaves no
trace, and a checkpoint holds all there is.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sevenfold.core import part


class Balance(part.Part, nn.Module):
    """Scores of `size` prototypes."""

    room = "balance"

    class Config(part.Config):
        pass

    def __init__(self, config: Any, size: int):
        super().__init__()
        self.config, self.size = config, size

    def forward(self, scores: Tensor, temperature: float) -> Tensor:
        """scores [b k] of one batch, in float32 at least → probabilities [b k]: every row sums to 1."""
        raise NotImplementedError

    def forget(self) -> None:
        """A step begins: drop what was noted of one that was not taken."""

    def after_step(self) -> None:
        """The end of an optimizer step."""
