"""Muon for the matrices inside blocks (momentum, then orthogonalised), AdamW for everything else.

    W <- W - lr scale UV^T,   U S V^T = svd(momentum) by Newton-Schulz;   scale as for AdamW's step size

Jordan 2024, kellerjordan.github.io/posts/muon; at scale, with matched step sizes, Liu 2025, arXiv:2502.16982. Kimi K2.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from sevenfold.training.optimizer import Optimizer, decayed


class Muon(Optimizer):
    class Config(Optimizer.Config):
        momentum: float = Field(0.95, ge=0, lt=1)
        """Memory of the gradient."""
        beta2: float = Field(0.98, ge=0, lt=1)
        """AdamW's second memory, for the parameters that are not matrices of blocks."""

    def share_out(self, parameters: dict[str, nn.Parameter]) -> list[torch.optim.Optimizer]:
        config = self.config
        inside = {n: p for n, p in parameters.items() if p.dim() == 2 and ".blocks." in n and n.endswith("weight")}
        others = {n: p for n, p in parameters.items() if n not in inside}
        found: list[torch.optim.Optimizer] = []
        if inside:
            found.append(
                torch.optim.Muon(
                    list(inside.values()),
                    lr=config.lr,
                    momentum=config.momentum,
                    weight_decay=config.weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        if others:
            groups = decayed(others, config.weight_decay)
            found.append(torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True))
        return found
