"""Muon for the matrices inside blocks (momentum, then orthogonalised), AdamW for everything else.

    W <- W - lr scale UV^T,   U S V^T = svd(momentum) by Newton-Schulz;   scale as for AdamW's step size

Jordan 2024, kellerjordan.github.io/posts/muon; at scale, with matched step sizes, Liu 2025, arXiv:2502.16982. Kimi K2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import nn

from sevenfold.training.optimizer import Optimizer
from sevenfold.training.optimizer._sharded_muon import SIZE, ShardedMuon
from sevenfold.training.parallel.gradients import sharded

ITERATIONS = 5
"""Of Newton and Schulz, torch's default."""


class Muon(Optimizer):
    class Config(Optimizer.Config):
        momentum: float = Field(0.95, ge=0, lt=1)
        """Memory of the gradient."""
        beta2: float = Field(0.98, ge=0, lt=1)
        """AdamW's second memory, for the parameters that are not matrices of blocks."""

    @classmethod
    def flops(cls, parameters: Mapping[str, nn.Parameter]) -> int:
        sides = [sorted(p.shape) for p in matrices(parameters).values()]
        return sum(ITERATIONS * (4 * a * a * b + 2 * a**3) for a, b in sides)

    @classmethod
    def scratch(cls, parameters: Mapping[str, nn.Parameter]) -> int:
        sides = [sorted(p.shape) for p in matrices(parameters).values()]
        return max((10 * a * b + 6 * a * a for a, b in sides), default=0)  # iterated in bf16

    def share_out(self, parameters: dict[str, nn.Parameter]) -> list[torch.optim.Optimizer]:
        config = self.config
        inside = matrices(parameters)
        others = {n: p for n, p in parameters.items() if n not in inside}
        parted = {n: p for n, p in inside.items() if n in self.cuts or sharded(p)}
        whole = {n: p for n, p in inside.items() if n not in parted}
        cuts = {id(p): self.cuts.get(n) for n, p in parted.items()}
        found: list[torch.optim.Optimizer] = []
        for those in (whole, parted):
            if those:
                settings = {"lr": config.lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
                groups = self.groups(those, power=0.5)
                found.append(
                    ShardedMuon(groups, cuts, **settings)
                    if those is parted
                    else torch.optim.Muon(groups, adjust_lr_fn=SIZE, **settings)
                )
        if others:
            groups = self.groups(others)
            found.append(torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True))
        return found


def matrices(parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The matrices inside blocks, by name."""
    return {n: p for n, p in parameters.items() if p.dim() == 2 and ".blocks." in n and n.endswith("weight")}
