"""Finite scalar quantization: each of a few numbers is rounded to one of L levels; the codes are their grid.

    f(z) = tanh(z + atanh(o/h)) h - o,   h = (L-1)(1+eps)/2,   o = 1/2 if L is even, else 0
    out = (f + sg(round(f) - f)) / floor(L/2),   k = sum_i (round(f_i) + floor(L_i/2)) prod_{j<i} L_j

Mentzer 2023, arXiv:2309.15505 sec. 3.1, eps = 1e-3. No codebook is learned, so none can collapse, and there is no
further loss. [8 5 5 5] stands for 1,000 codes, [7 5 5 5 5] for 4,375. X-codec 2, Cosmos' tokenizer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor

from sevenfold.core.types import wide
from sevenfold.objective.quantizer import Quantized, Quantizer

EPSILON = 1e-3
MOST = 1 << 20
"""The most codes."""


class FSQ(Quantizer):
    class Config(Quantizer.Config):
        levels: tuple[int, ...] = Field((8, 5, 5, 5), min_length=1, max_length=16)
        """Levels L of each number, at least 3; their product is how many codes there are."""

        @field_validator("levels")
        @classmethod
        def _levels(cls, value: tuple[int, ...]) -> tuple[int, ...]:
            if min(value) < 3 or math.prod(value) > MOST:
                raise ValueError(f"every level is at least 3, and their product at most {MOST:,}, not {list(value)}")
            return value

    variants = ({"levels": [3]}, {"levels": [4, 7]})

    def __init__(self, config: Any):
        super().__init__(config, math.prod(config.levels), len(config.levels))
        levels = torch.tensor(config.levels)
        self.levels: Tensor
        self.basis: Tensor
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("basis", torch.cat([levels.new_ones(1), levels[:-1].cumprod(0)]), persistent=False)

    def forward(self, z: Tensor, valid: Tensor | None = None, score: Tensor | None = None) -> Quantized:
        with torch.autocast(z.device.type, enabled=False):
            bounded = self.bounded(wide(z))
            half = self.levels // 2
            rounded = bounded.detach().round()
            ids = ((rounded.long() + half) * self.basis).sum(-1)
            self.note(ids if valid is None else ids[valid])
            x = (bounded + (rounded - bounded).detach()) / half
            return Quantized(x, ids, x.new_zeros(ids.shape))

    def bounded(self, z: Tensor) -> Tensor:
        """z [… w] between the lowest and the highest level; 0 stays 0."""
        half = (self.levels - 1).to(z.dtype) * (1 + EPSILON) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0).to(z.dtype)
        return torch.tanh(z + torch.atanh(offset / half)) * half - offset

    def vectors(self) -> Tensor:
        ids = torch.arange(self.size, device=self.uses.device).unsqueeze(1)
        half = self.levels // 2
        return ((ids // self.basis) % self.levels - half).to(self.uses.dtype) / half
