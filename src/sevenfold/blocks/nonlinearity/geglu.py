"""Gated feed-forward with a GELU gate.

    y = (gelu(x W_gate) * x W_value) W_down

Shazeer 2020, arXiv:2002.05202 eq. 5. ModernBERT exact; T5 v1.1 and Gemma with the tanh approximation of GELU.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.nonlinearity import Nonlinearity


class GEGLU(Nonlinearity):
    class Config(Nonlinearity.Config):
        tanh: bool = False
        """The tanh approximation, as T5 v1.1 has it."""

    gated = True
    variants = ({"tanh": True},)

    def activate(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh" if self.config.tanh else "none")
