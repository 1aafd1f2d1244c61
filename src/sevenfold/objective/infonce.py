"""Contrast between two streams: matching pairs are near, the others in the batch are far.

    L = - 1/2b sum_i [ log softmax_j(s u_i.v_j)_i + log softmax_j(s v_i.u_j)_i ],   u, v of length 1, s = exp(t) <= 100

van den Oord 2018, arXiv:1807.03748 eq. 4; symmetric with a learned temperature, Radford 2021 (CLIP), arXiv:2103.00020. The more
rows a batch has, the harder it is: `train.accumulate` makes room for them, and the loss stays that of the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sevenfold.assembly.model import Model
from sevenfold.core.initial import Constant, Rule
from sevenfold.core.types import Loss
from sevenfold.objective._towers import Towers, U, V


class InfoNCE(Towers):
    class Config(Towers.Config):
        temperature: float = Field(0.07, gt=0)
        """1/s at the start."""

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.scale = nn.Parameter(torch.empty(()))

    def rules(self) -> dict[str, Rule]:
        return {"scale": Constant(math.log(1 / self.config.temperature))}

    def compare(self, vectors: Mapping[str, Tensor]) -> Loss:
        u, v = vectors[U], vectors[V]
        with torch.autocast(u.device.type, enabled=False):
            logits = self.scale.exp() * u @ v.T
        same = self.matches(vectors)
        target = same.to(logits.dtype)
        forward = -(logits.log_softmax(1) * target).sum(1) / target.sum(1)
        backward = -(logits.T.log_softmax(1) * target.T).sum(1) / target.T.sum(1)
        total = (forward.sum() + backward.sum()) / 2
        count = torch.tensor(float(len(u)), device=u.device)
        terms = {"nats": (total.detach(), count), **self.found(logits, same), **self.alive(u, v)}
        return Loss(total, count, terms, {"u": u.detach(), "v": v.detach()})

    @torch.no_grad()
    def after_step(self, step: int, steps: int) -> None:
        self.scale.clamp_(0, math.log(100))
