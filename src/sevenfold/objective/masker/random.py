"""Tokens hidden one by one, each as likely as any other.

    s_i ~ U(0, 1)

Devlin 2018 (BERT), arXiv:1810.04805 section 3.1; He 2021 (MAE), arXiv:2111.06377 section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sevenfold.objective.masker import Masker


class Random(Masker):
    def scores(self, coords: Tensor, eligible: Tensor) -> Tensor:
        return torch.rand(eligible.shape, device=coords.device)
