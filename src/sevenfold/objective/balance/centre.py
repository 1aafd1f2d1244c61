"""The running mean of the scores is taken off them, and what is left is sharpened.

    p = softmax((g - c) / t),   c <- m c + (1 - m) mean(g)  after the step

Caron 2021 (DINO), arXiv:2104.14294 eq. 4. The centre alone would make p uniform, a low t alone would give everything to one
prototype: together they balance. Used by DINO and iBOT.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.core import ranks
from sevenfold.objective.balance import Balance


class Centre(Balance):
    class Config(Balance.Config):
        momentum: float = Field(0.9, ge=0, le=1)
        """m; at 1 there is no centre."""

    variants = ({"momentum": 0.5},)

    centre: Tensor
    """[k] c."""
    noted: Tensor
    """[k + 1] the sum of the scores since `forget`, and of how many rows."""

    def __init__(self, config: Any, size: int):
        super().__init__(config, size)
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("noted", torch.zeros(size + 1, dtype=torch.float64), persistent=False)

    def forward(self, scores: Tensor, temperature: float) -> Tensor:
        if self.training:
            self.noted[:-1] += scores.detach().sum(0)
            self.noted[-1] += len(scores)
        return ((scores - self.centre) / temperature).softmax(-1)

    def forget(self) -> None:
        self.noted.zero_()

    @torch.no_grad()
    def after_step(self) -> None:
        noted = ranks.data().all_reduce_no_grad(self.noted)
        if float(noted[-1]) > 0:
            mean = (noted[:-1] / noted[-1]).to(self.centre)
            self.centre.lerp_(mean, 1 - self.config.momentum)
        self.forget()
