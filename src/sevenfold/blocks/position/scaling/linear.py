"""Position interpolation: every frequency divided by the factor.

    w_i' = w_i / s

Chen 2023, arXiv:2306.15595 eq. 4. Vicuna and LongChat with 16k and 32k tokens.
"""

from __future__ import annotations

from torch import Tensor

from sevenfold.blocks.position.scaling import Scaling, plain


class LinearScaling(Scaling):
    class Config(Scaling.Config):
        pass

    def frequencies(self, pairs: int, base: float) -> tuple[Tensor, float]:
        return plain(pairs, base) / self.config.factor, 1.0
