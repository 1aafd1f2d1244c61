"""Contrast between two streams, pair by pair: does this picture belong to this caption?

    L = - 1/b sum_i sum_j log sigmoid(y_ij (s u_i.v_j + c)),   y_ij 1 for a match and -1 else, u, v of length 1, s = exp(t)

Zhai 2023 (SigLIP), arXiv:2303.15343 eq. 1 and section 3.1: t = log 10 and c = -10 at the start, so that nearly all pairs, which do
not match, begin with the right answer. Each pair is a question of its own, so that no row is normalised over the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.assembly.model import Model
from sevenfold.core.initial import Constant, Rule
from sevenfold.core.types import Loss
from sevenfold.objective._towers import Towers, U, V


class Sigmoid(Towers):
    class Config(Towers.Config):
        temperature: float = Field(0.1, gt=0)
        """1/s at the start."""
        offset: float = -10.0
        """c at the start."""

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.scale = nn.Parameter(torch.empty(()))
        self.bias = nn.Parameter(torch.empty(()))

    def rules(self) -> dict[str, Rule]:
        return {"scale": Constant(math.log(1 / self.config.temperature)), "bias": Constant(self.config.offset)}

    def compare(self, vectors: Mapping[str, Tensor]) -> Loss:
        u, v = vectors[U], vectors[V]
        with torch.autocast(u.device.type, enabled=False):
            logits = self.scale.exp() * u @ v.T + self.bias
        same = self.matches(vectors)
        total = -F.logsigmoid(torch.where(same, logits, -logits)).sum()
        count = torch.tensor(float(len(u)), device=u.device)
        terms = {"nats": (total.detach(), count), **self.found(logits, same), **self.alive(u, v)}
        terms["offset"] = (self.bias.detach() * count, count)
        return Loss(total, count, terms, {"u": u.detach(), "v": v.detach()})

    @staticmethod
    def chance(same: Tensor) -> float:
        share = float(same.double().mean())
        inner = -sum(p * math.log(p) for p in (share, 1 - share) if p > 0)
        return same.numel() * inner
