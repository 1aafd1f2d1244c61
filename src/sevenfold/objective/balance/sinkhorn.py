"""Every prototype gets about the same share of a batch, by scaling rows and columns in turn.

    Q = exp(g / t);   n times: divide by the sum of each prototype, then by the sum of each sample;   p = Q

Caron 2020 (SwAV), arXiv:2006.09882 section 3.1, after Cuturi 2013, arXiv:1306.0895. Sums of samples are exact, those of
prototypes nearly so after three rounds. It wants batches of about an eighth of the prototypes. Used by DINOv2.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.core import ranks
from sevenfold.objective.balance import Balance


class Sinkhorn(Balance):
    class Config(Balance.Config):
        rounds: int = Field(3, ge=1, le=1000)
        """n."""

    variants = ({"rounds": 1},)

    def forward(self, scores: Tensor, temperature: float) -> Tensor:
        logs = scores / temperature
        for _ in range(self.config.rounds):
            logs = logs - _over_rows(logs)
            logs = logs - logs.logsumexp(1, keepdim=True)
        return logs.exp()


def _over_rows(logs: Tensor) -> Tensor:
    """log sum exp of each column over the rows of all ranks, [1 k]."""
    others = ranks.data()
    if others.alone:
        return logs.logsumexp(0, keepdim=True)
    lowest = torch.finfo(logs.dtype).min
    most = others.max(logs.amax(0, keepdim=True) if len(logs) else logs.new_full((1, logs.shape[1]), lowest))
    return most + others.all_reduce_no_grad((logs - most).exp().sum(0, keepdim=True)).log()
