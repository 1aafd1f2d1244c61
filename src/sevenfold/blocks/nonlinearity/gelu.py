"""Gaussian error linear unit feed-forward.

    y = gelu(x W_up) W_down,   gelu(x) = x Phi(x)

Hendrycks and Gimpel 2016, arXiv:1606.08415 (exact, or the tanh approximation of its section 2). BERT, ViT, ESM-2 exact;
GPT-2 with tanh.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.nonlinearity import Nonlinearity


class GELU(Nonlinearity):
    class Config(Nonlinearity.Config):
        tanh: bool = False
        """The tanh approximation, as GPT-2 has it."""

    variants = ({"tanh": True}, {"inner": 20})

    def activate(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh" if self.config.tanh else "none")
