"""YaRN: high frequencies kept, low ones divided, a ramp over the channels between, and sharper attention.

    w_i' = w_i (1 - r_i) + (w_i / s) r_i,   r_i = ramp of i from dim(fast) to dim(slow);   cos, sin times 0.1 ln s + 1
    dim(n) = d ln(L0 / (2 pi n)) / (2 ln base)

Peng 2023, arXiv:2309.00071 section 3.2 to 3.4; the ramp is over channel numbers, as in the deployed models (the paper's
text has it over turns). Qwen 2.5 and 3, DeepSeek-V3, gpt-oss.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.blocks.position.scaling import Scaling, plain


class Yarn(Scaling):
    class Config(Scaling.Config):
        trained: int = Field(4096, ge=1)
        """L0, the length it was trained at."""
        fast: float = Field(32.0, gt=0)
        """Turns within L0 from which a frequency is kept."""
        slow: float = Field(1.0, gt=0)
        """Turns within L0 up to which a frequency is divided."""
        whole: bool = True
        """The ramp begins and ends at whole channels (not in gpt-oss)."""
        sharper: float | None = Field(None, gt=0)
        """What cos and sin are multiplied by; by default 0.1 ln s + 1."""

    variants = ({"whole": False, "factor": 32.0},)

    def frequencies(self, pairs: int, base: float) -> tuple[Tensor, float]:
        own = plain(pairs, base)
        low, high = (self._channel(turns, pairs, base) for turns in (self.config.fast, self.config.slow))
        if self.config.whole:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * pairs - 1)
        ramp = ((torch.arange(pairs, dtype=torch.float64) - low) / max(high - low, 1e-3)).clamp(0, 1)
        factor = self.config.factor
        return own * (1 - ramp) + own / factor * ramp, self.config.sharper or 0.1 * math.log(factor) + 1.0

    def _channel(self, turns: float, pairs: int, base: float) -> float:
        """The (real) number of the pair that turns so often within the trained length."""
        return pairs * math.log(self.config.trained / (turns * 2 * math.pi)) / math.log(base)
