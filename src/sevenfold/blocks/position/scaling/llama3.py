"""Frequencies that turn often within the trained length are kept, rare ones divided by the factor, between them a blend.

    w_i' = w_i (g + (1 - g)/s),   g = clip((L0 w_i / 2 pi - lo) / (hi - lo), 0, 1)

Llama 3.1, arXiv:2407.21783 section 3.4.2 and its published configuration (s = 8, lo = 1, hi = 4, L0 = 8192).
"""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor

from sevenfold.blocks.position.scaling import Scaling, plain


class Llama3(Scaling):
    class Config(Scaling.Config):
        trained: int = Field(8192, ge=1)
        """L0, the length it was trained at."""
        low: float = Field(1.0, gt=0)
        """Turns within L0 up to which a frequency is divided."""
        high: float = Field(4.0, gt=0)
        """Turns within L0 from which a frequency is kept."""

    def frequencies(self, pairs: int, base: float) -> tuple[Tensor, float]:
        own = plain(pairs, base)
        turns = self.config.trained * own / (2 * math.pi)
        kept = ((turns - self.config.low) / max(self.config.high - self.config.low, 1e-9)).clamp(0, 1)
        return own * (kept + (1 - kept) / self.config.factor), 1.0
