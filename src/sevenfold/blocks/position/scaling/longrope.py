"""LongRoPE: every frequency divided by a number of its own, found by search, and sharper attention.

    w_i' = w_i / f_i,   cos, sin times sqrt(1 + ln s / ln L0)

Ding 2024, arXiv:2402.13753. Phi-3 and Phi-4 (128k).
"""

from __future__ import annotations

import math

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from sevenfold.blocks.position.scaling import Scaling, plain
from sevenfold.core.errors import ConfigError


class LongRope(Scaling):
    class Config(Scaling.Config):
        factors: tuple[PositiveFloat, ...] = ()
        """f_i, one per pair of a head; by default the factor for all."""
        trained: int = Field(4096, ge=2)
        """L0, the length it was trained at."""
        sharper: float | None = Field(None, gt=0)
        """What cos and sin are multiplied by; by default sqrt(1 + ln s / ln L0)."""

    def frequencies(self, pairs: int, base: float) -> tuple[Tensor, float]:
        factors = self.config.factors or (self.config.factor,) * pairs
        if len(factors) != pairs:
            raise ConfigError(f"rotary scaling 'longrope': {len(factors)} factors for heads of {pairs} pairs")
        sharper = self.config.sharper or math.sqrt(1 + math.log(self.config.factor) / math.log(self.config.trained))
        return plain(pairs, base) / torch.tensor(factors, dtype=torch.float64), sharper
