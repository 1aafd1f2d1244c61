"""Learning from labels where there are some, and without them from all samples.

    L = L_labels + w L_unlabelled         L_labels over the samples whose label is known, L_unlabelled over all

Any supervised objective and any that needs no labels, on one model (Zhai 2019, S4L, arXiv:1905.03670 eq. 1). Samples without a
label are samples of `data.partly`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.assembly.model import ModelConfig
from sevenfold.core import part
from sevenfold.core.types import Batch
from sevenfold.objective import Objective
from sevenfold.objective._parts import Parts


class SemiSupervised(Parts):
    class Config(Objective.Config):
        labels: Objective.Config = part.default("supervised")
        """What is learned from labels."""
        unlabelled: Objective.Config = part.default("simclr")
        """What is learned without."""
        weight: float = Field(0.5, gt=0)
        """w."""

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "data": {"kind": "digits", "limit": 48, "labelled": {"label": 2}},
            "streams": {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}}, "label": "label"},
            "trunks": {
                "enc": {"inputs": ["image"], "width": 32, "depth": 1, "position": "axial_rotary"},
                "dec": {"inputs": ["enc"], "width": 24, "depth": 1, "position": "axial_rotary"},
            },
            "objective": {"kind": cls.kind, "labels": {"trunk": "enc"}, "unlabelled": "mae"},
        }

    @classmethod
    def of(cls, config: Any, model: ModelConfig) -> dict[str, Objective.Config]:
        return {"labels": config.labels, "unlabelled": config.unlabelled}

    def initial(self, batch: Batch) -> float | None:
        found = [part.initial(self.given(name, batch)) for name, part in self.parts.items()]
        return None if found[0] is None or found[1] is None else found[0] + self.config.weight * found[1]

    def weighed(self, sums: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        weights = {"labels": 1.0, "unlabelled": self.config.weight}
        return torch.stack([weights[name] * total for name, total in sums.items()]).sum()
