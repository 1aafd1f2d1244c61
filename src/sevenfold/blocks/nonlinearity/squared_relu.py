"""Squared rectified linear feed-forward.

    y = max(0, x W_up)^2 W_down

So 2021, arXiv:2109.08668 (Primer) section 4.2. Primer, Nemotron-4, RWKV's channel mixing.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.nonlinearity import Nonlinearity


class SquaredReLU(Nonlinearity):
    class Config(Nonlinearity.Config):
        pass

    def activate(self, x: Tensor) -> Tensor:
        return F.relu(x).square()
