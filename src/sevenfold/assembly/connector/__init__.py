"""Connectors: what takes the vectors of an earlier trunk to the width of the one that reads them.

The contract of this room. By default there is none where the widths are equal, and `linear` where they are not; another
one is named in the trunk's `entries`:

    lm: {inputs: [v, text], entries: {v: {connector: mlp}}}
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from sevenfold.core import part
from sevenfold.core.initial import Ruled


class Connector(part.Part, Ruled):
    """forward(x [… width_in]) → [… width_out], token by token."""

    room = "connector"

    class Config(part.Config):
        pass

    reads_ids: ClassVar[bool] = False
    """It takes vectors."""

    def __init__(self, config: Any, width_in: int, width_out: int):
        super().__init__()
        self.config, self.width_in, self.width_out = config, width_in, width_out

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def flops(self, tokens: int) -> int:
        """Multiply-adds ×2 of one forward pass over `tokens` vectors, by formula."""
        raise NotImplementedError

    def kept(self, tokens: int) -> int:
        """Numbers kept for the backward pass over `tokens` vectors, beside the input and parameters, by formula."""
        return 0
