"""Gated feed-forward with a ReLU gate.

    y = (max(0, x W_gate) * x W_value) W_down

Shazeer 2020, arXiv:2002.05202 eq. 5.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.nonlinearity import Nonlinearity


class ReGLU(Nonlinearity):
    class Config(Nonlinearity.Config):
        pass

    gated = True

    def activate(self, x: Tensor) -> Tensor:
        return F.relu(x)
