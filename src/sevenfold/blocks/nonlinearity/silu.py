"""Sigmoid linear unit (swish) feed-forward.

    y = silu(x W_up) W_down,   silu(x) = x sigmoid(x)

Elfwing 2017, arXiv:1702.03118; Ramachandran 2017, arXiv:1710.05941.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.nonlinearity import Nonlinearity


class SiLU(Nonlinearity):
    class Config(Nonlinearity.Config):
        pass

    def activate(self, x: Tensor) -> Tensor:
        return F.silu(x)
