"""Two looks at an item become equal, while every dimension keeps its variance and no two say the same.

    L = a mean_i |z_i - z'_i|^2 / d + b mean of both looks of (1/d) sum_j max(0, 1 - sqrt(var_j + 1e-4))
        + c sum over both looks of (1/d) sum_{j != k} C_jk^2,          C covariance of the batch (over b - 1)

z is what the expander gives, not scaled to a length. Bardes 2021 (VICReg), arXiv:2105.04906 eq. 6, with the constants 25, 25, 1 of
section 4.2; the variance term is halved as in the released code. It is thrown away after training: the representation is what
the expander reads. Without the variance term (`variance: 0`) everything becomes one point.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.assembly.cost import Cost
from sevenfold.assembly.model import Model
from sevenfold.core.types import Batch, Loss
from sevenfold.objective._looks import Looking
from sevenfold.objective._projector import Projector
from sevenfold.objective._watch import collapsed, health

SHRUNK = 0.95
"""A variance term above this is a point: standard deviations of 0.05 at most, where 1 is asked for."""


class VICReg(Looking):
    class Config(Looking.Config):
        hidden: int = Field(256, ge=1)
        """Channels inside the expander."""
        width: int = Field(128, ge=2)
        """d, the channels that it gives: about as many as a batch has rows, or the covariance is mostly noise."""
        invariance: float = Field(25.0, ge=0)
        """a, the weight of looks being equal."""
        variance: float = Field(25.0, ge=0)
        """b, the weight of every dimension having a standard deviation of 1."""
        covariance: float = Field(1.0, ge=0)
        """c, the weight of dimensions not going together."""

    cached = True
    watched = ("spread", "rank")

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {**super().example(), "objective": {"kind": cls.kind, "width": 16}}

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.expander = Projector(self.width, config.hidden, config.width, layers=3)

    def compare(self, vectors: Mapping[str, Tensor]) -> Loss:
        z = torch.cat([vectors[name] for name in self.names()])
        b, config = len(z) // 2, self.config
        if b < 2:
            return self.nothing()
        with torch.autocast(z.device.type, enabled=False):
            u = self.expander(z)
            near = (u[:b] - u[b:]).square().mean()
            looks = [look - look.mean(0) for look in (u[:b], u[b:])]
            covariances = [look.T @ look / (b - 1) for look in looks]
            wide = torch.stack([(1 - (c.diagonal() + 1e-4).sqrt()).relu().mean() for c in covariances]).mean()
            apart = (
                torch.stack([c.square().sum() - c.diagonal().square().sum() for c in covariances]).sum() / config.width
            )
            loss = config.invariance * near + config.variance * wide + config.covariance * apart
        count = torch.tensor(float(b), device=z.device)
        parts = {"invariance": near, "variance": wide, "covariance": apart}
        terms = {name: (value.detach() * count, count) for name, value in parts.items()}
        return Loss(loss * count, count, {**terms, **health(u)}, {"z": z.detach()})

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        """Its vectors have no length of their own, so that their size tells first."""
        if terms.get("variance", 0.0) > SHRUNK:
            small = 1 - terms["variance"]
            return [
                f"the representation has collapsed to a point: its standard deviation is {small:.3f} (1 is asked for)"
            ]
        return collapsed(terms)

    def own_costs(self) -> list[Cost]:
        return [cost._replace(flops=2 * self.expander.flops()) for cost in super().own_costs()]

    def flops(self, batch: Batch) -> int:
        """Its covariances too: two products over the rows of a batch, which are no row's own."""
        whole = self.whole(batch)
        if whole is None:
            return 0
        rows = len(next(iter(whole.values())).values)
        return super().flops(batch) + 4 * rows * self.config.width**2
