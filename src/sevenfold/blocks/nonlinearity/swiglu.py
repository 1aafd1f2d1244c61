"""Gated feed-forward with a SiLU gate.

    y = (silu(x W_gate) * x W_value) W_down

Shazeer 2020, arXiv:2002.05202 eq. 5. Llama, Mistral, Qwen, OLMo 2, DINOv2 (giant).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.nonlinearity import Nonlinearity


class SwiGLU(Nonlinearity):
    class Config(Nonlinearity.Config):
        pass

    gated = True
    variants = ({"expand": 1.5},)

    def activate(self, x: Tensor) -> Tensor:
        return F.silu(x)
