"""Rectified linear feed-forward.

    y = max(0, x W_up) W_down

Vaswani 2017, arXiv:1706.03762 eq. 2. The first transformer, T5 v1.0, OPT.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.nonlinearity import Nonlinearity


class ReLU(Nonlinearity):
    class Config(Nonlinearity.Config):
        pass

    def activate(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def kept(self, tokens: int) -> int:
        return tokens * self.inner  # its own output is enough
