"""A larger base: the highest frequency is kept, the lowest is divided by the factor.

    base' = base g^(d/(d-2)),   g = s;   with `length` L and `trained` L0:   g = s L/L0 - (s - 1)

The second form is the "dynamic" one at a length L, here fixed in advance. bloc97 2023 (NTK-aware), described in Peng
2023, arXiv:2309.00071 section 3.1. Code Llama's base of 10^6 is this by another name.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from sevenfold.blocks.position.scaling import Scaling, plain
from sevenfold.core.errors import ConfigError


class NTK(Scaling):
    class Config(Scaling.Config):
        length: int | None = Field(None, ge=1)
        """The length it is used at, for the dynamic form; by default the static form."""
        trained: int = Field(2048, ge=1)
        """The length it was trained at, for the dynamic form."""

    variants = ({"length": 8192, "factor": 2.0},)

    def frequencies(self, pairs: int, base: float) -> tuple[Tensor, float]:
        if pairs < 2:
            raise ConfigError("rotary scaling 'ntk': heads of one pair have no lowest frequency: choose wider heads")
        grown = self.config.factor
        if self.config.length is not None:
            longer = max(self.config.length, self.config.trained) / self.config.trained
            grown = self.config.factor * longer - (self.config.factor - 1)
        return plain(pairs, base * grown ** (pairs / (pairs - 1))), 1.0
