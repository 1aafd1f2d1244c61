"""One look predicts what a slow teacher makes of the other; nothing is pushed apart.

    L = 2 - 2 cos(q(g(f(x_1))), g'(f'(x_2))) + the same with the looks swapped
    f' g' <- m f' g' + (1 - m) f g,   m from m_0 to 1 along half a cosine

f trunk, g projector, q predictor, on the student's side only. Grill 2020 (BYOL), arXiv:2006.07733 eq. 2 and section 3.1. Without
the predictor it collapses (their table 5b): `predictor: false` is that ablation, and the alarm is raised. The teacher's batch norms
take the statistics of the batch in training, as in the released code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.assembly.cost import Cost
from sevenfold.assembly.model import Model
from sevenfold.core.types import Batch, Loss
from sevenfold.objective._looks import Looking
from sevenfold.objective._projector import Projector
from sevenfold.objective._teacher import Clock, Teacher, cosine, trunks_for
from sevenfold.objective._watch import collapsed, health

POINT = 0.15
"""A spread below this is a point: it is above 0.4 in health, and batch norm keeps what has collapsed at a tenth."""


class BYOL(Looking):
    class Config(Looking.Config):
        hidden: int = Field(256, ge=1)
        """Channels inside the projector and the predictor."""
        width: int = Field(64, ge=1)
        """Channels that are compared."""
        momentum: float = Field(0.98, ge=0, le=1)
        """m_0: the teacher looks back over 1 / (1 - m_0) steps, which should be few of all."""
        predictor: bool = True
        """Whether the student predicts. Without it everything becomes one point: for showing that."""

    cached = True
    watched = ("spread", "rank")

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.projector = Projector(self.width, config.hidden, config.width)
        self.predictor: Projector | None = None
        if config.predictor:
            self.predictor = Projector(config.width, config.hidden, config.width)
        self.teacher, self.clock = Teacher(**self._followed()).by_batch(), Clock()

    def _followed(self) -> dict[str, nn.Module]:
        trunks: Any = trunks_for(self.model, self.trunk)
        return {"trunks": trunks, "projector": self.projector}

    def settle(self) -> None:
        self.teacher.settle(**self._followed())

    def after_step(self, step: int, steps: int) -> None:
        self.teacher.follow(cosine(self.config.momentum, 1.0, self.clock.share), **self._followed())
        self.clock.tick(step, steps)

    def embed(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> dict[str, Tensor] | None:
        """Of each look the representation of the student, and of the teacher."""
        whole = self.whole(batch)
        if whole is None:
            return None
        found = {name: self.pooled(whole, name) for name in self.names()}
        with torch.no_grad():
            for name in self.names():
                found[f"{name} taught"] = self.pooled(whole, name, self.teacher["trunks"])
        return found

    def compare(self, vectors: Mapping[str, Tensor]) -> Loss:
        z = torch.cat([vectors[name] for name in self.names()])
        taught = torch.cat([vectors[f"{name} taught"] for name in reversed(self.names())])
        with torch.autocast(z.device.type, enabled=False):
            with torch.no_grad():
                wanted = self.teacher["projector"](taught)
            u = self.projector(z)
            guess = u if self.predictor is None else self.predictor(u)
            total = (2 - 2 * F.cosine_similarity(guess, wanted, dim=-1)).sum()
        count = torch.tensor(float(len(z) // 2), device=z.device)
        terms = {"cosine": (count - total.detach() / 4, count), **health(u)}
        return Loss(total, count, terms, {"z": z.detach()})

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        return collapsed(terms, point=POINT)

    # What it costs
    def costs(self, lengths: Mapping[str, int], masked: Iterable[str] = ()) -> list[Cost]:
        found = super().costs(lengths, masked)
        own = len(self.own_costs())
        taught = [
            cost._replace(place=f"teacher.{cost.place}", parameters=0, trained=0, backward=0, kept=0)
            for cost in found[: len(found) - own]
        ]
        return [*found[: len(found) - own], *taught, *found[len(found) - own :]]

    def own_costs(self) -> list[Cost]:
        flops = 2 * self.projector.flops() + (0 if self.predictor is None else self.predictor.flops())
        return [cost._replace(flops=2 * flops) for cost in super().own_costs()]
