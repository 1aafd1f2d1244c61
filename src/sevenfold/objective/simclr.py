"""Two looks at an item are near, looks at others far.

    L = - sum_{i} log [exp(s_ij / t) / sum_{k != i} exp(s_ik / t)],   s cosine, i over all 2b looks, j the other look at i's item

Chen 2020 (SimCLR), arXiv:2002.05709 eq. 1. The projector is thrown away after training: the representation is what it reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from sevenfold.assembly.cost import Cost
from sevenfold.assembly.model import Model
from sevenfold.core.types import Batch, Loss
from sevenfold.objective._looks import Looking
from sevenfold.objective._projector import Projector
from sevenfold.objective._watch import collapsed, health


class SimCLR(Looking):
    class Config(Looking.Config):
        temperature: float = Field(0.2, gt=0)
        """t."""
        hidden: int = Field(256, ge=1)
        """Channels inside the projector."""
        width: int = Field(64, ge=1)
        """Channels that are compared."""

    cached = True
    watched = ("spread", "rank")

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.projector = Projector(self.width, config.hidden, config.width)

    def compare(self, vectors: Mapping[str, Tensor]) -> Loss:
        z = torch.cat([vectors[name] for name in self.names()])
        with torch.autocast(z.device.type, enabled=False):
            u = F.normalize(self.projector(z), dim=-1)
            logits = (u @ u.T / self.config.temperature).fill_diagonal_(-math.inf)
        b = len(u) // 2
        other = torch.cat([torch.arange(b, 2 * b), torch.arange(b)]).to(u.device)
        total = F.cross_entropy(logits, other, reduction="sum")
        count = torch.tensor(float(2 * b), device=u.device)
        right = (logits.argmax(1) == other).sum()
        terms = {"nats": (total.detach(), count), "recall@1": (right, count), **health(u)}
        return Loss(total, count, terms, {"z": z.detach()})

    def own_costs(self) -> list[Cost]:
        return [cost._replace(flops=2 * self.projector.flops()) for cost in super().own_costs()]

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        return collapsed(terms)

    def baselines(self, train: Sequence[Batch], held_out: Sequence[Batch]) -> dict[str, dict[str, float]]:
        rows = [2 * len(next(iter(whole.values())).values) - 1 for batch in held_out if (whole := self.whole(batch))]
        if not rows:
            return {}
        count = sum(n + 1 for n in rows)
        nats = sum((n + 1) * math.log(max(n, 1)) for n in rows) / count
        return {"chance": {"nats": nats, "recall@1": sum((n + 1) / max(n, 1) for n in rows) / count}}
