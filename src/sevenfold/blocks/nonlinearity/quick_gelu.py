"""Feed-forward with the sigmoid approximation of GELU.

    y = g(x W_up) W_down,   g(x) = x sigmoid(1.702 x)

Hendrycks and Gimpel 2016, arXiv:1606.08415 section 2. CLIP as OpenAI published it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sevenfold.blocks.nonlinearity import Nonlinearity


class QuickGELU(Nonlinearity):
    class Config(Nonlinearity.Config):
        pass

    def activate(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)

    def kept(self, tokens: int) -> int:
        return 3 * tokens * self.inner  # the sigmoid as well
