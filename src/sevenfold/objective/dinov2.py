"""Self-distillation of whole looks, small crops and hidden tokens, with neighbours kept apart.

    L = class · [mean over global u and looks v != u of H(P(u), s(v))]  +  patch · (hidden tokens, as in ibot)  +  koleo · sum_g koleo(x_g)

Oquab 2023 (DINOv2), arXiv:2304.07193 section 4: the looks of DINO (arXiv:2104.14294 eq. 3: the teacher sees global ones, the
student also small crops), the hidden tokens of iBOT, Sinkhorn in place of centring (`balance: sinkhorn`), KoLeo (arXiv:
1806.03198). Registers (Darcet 2023, arXiv:2309.16588) are the trunk's: `trunks.….registers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.assembly.model import Model
from sevenfold.data.view import View
from sevenfold.objective import Look
from sevenfold.objective._dino import SelfDistillation
from sevenfold.objective._looks import decoded
from sevenfold.objective._prototypes import against, koleo


class DINOv2(SelfDistillation):
    class Config(SelfDistillation.Config):
        crops: int = Field(4, ge=0, le=64)
        """How many small crops the student sees of each item, where its kind has any."""
        crop_views: tuple[View.Config, ...] | None = None
        """The random changes that make them; by default those that the modality declares."""
        koleo: float = Field(0.1, ge=0)
        """The weight of what keeps neighbours apart."""

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        own = decoded(model.modalities[self.stream].augmentation().part)
        self.crop_views: tuple[View.Config, ...] = own if config.crop_views is None else config.crop_views

    def crops(self) -> list[str]:
        """The names of the small crops."""
        return [f"{self.stream}.crop.{place}" for place in range(self.config.crops if self.crop_views else 0)]

    def names(self) -> list[str]:
        return [*self.globals(), *self.crops()]

    def looks(self) -> dict[str, Look]:
        return super().looks() | {name: Look(self.stream, self.crop_views) for name in self.crops()}

    def pairs(self, wanted: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> dict[str, tuple[float, Tensor]]:
        t, crops = self.config.temperature, self.crops()
        found = super().pairs(wanted, {name: scores[name] for name in self.globals()})
        if not crops:
            return found
        small = torch.stack([against(p, scores[name], t).mean() for p in wanted.values() for name in crops]).mean()
        pairs = 2 + 2 * len(crops)
        return {"class": (2 / pairs, found["class"][1]), "crops": (2 * len(crops) / pairs, small)}

    def more(self, pools: Mapping[str, Tensor]) -> dict[str, tuple[float, Tensor]]:
        if not self.config.koleo:
            return {}
        return {"koleo": (self.config.koleo, torch.stack([koleo(pools[name]) for name in self.globals()]).sum())}
