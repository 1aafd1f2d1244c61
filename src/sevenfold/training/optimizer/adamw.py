"""AdamW, fused.

    m <- b1 m + (1-b1) g;  v <- b2 v + (1-b2) g^2;  w <- w - lr (m^ / (sqrt(v^) + eps) + decay w)

Loshchilov and Hutter 2017, arXiv:1711.05101. The default of nearly every published model.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from sevenfold.training.optimizer import Optimizer


class AdamW(Optimizer):
    class Config(Optimizer.Config):
        beta1: float = Field(0.9, ge=0, lt=1)
        """Memory of the mean gradient."""
        beta2: float = Field(0.98, ge=0, lt=1)
        """Memory of the mean squared gradient."""
        eps: float = Field(1e-8, gt=0)
        """Added to the root."""

    def share_out(self, parameters: dict[str, nn.Parameter]) -> list[torch.optim.Optimizer]:
        config = self.config
        groups = self.groups(parameters)
        return [torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)]
