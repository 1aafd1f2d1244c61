"""Rotary: queries and keys are turned by angles proportional to their position, so scores see differences only.

    (x_i, x_{i+d/2}) <- R(p w_i) (x_i, x_{i+d/2}),   w_i = base^(-2i/d);   <R_n q, R_m k> depends on n - m

Norms are kept (but for a scaling that sharpens). Angles are made in float64: in float32 they are 2e-2 off at position
10^6. Su 2021, arXiv:2104.09864 (pairs in halves, as in Llama). Llama, Mistral, Qwen, ESM-2, ModernBERT.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from sevenfold.blocks.position import Position, one_axis
from sevenfold.blocks.position.scaling import Scaling, plain
from sevenfold.core.errors import ConfigError


class Rotary(Position):
    class Config(Position.Config):
        base: float = Field(10000.0, gt=1)
        """The longest wavelength is about 2 pi base."""
        scaling: Scaling.Config | None = None
        """How the frequencies of training are stretched for a longer use."""

    variants = ({"scaling": {"kind": "llama3", "trained": 64}}, {"scaling": {"kind": "yarn", "trained": 256}})

    def __init__(self, config: Any, width: int, axes: int, heads: int | None = None):
        super().__init__(config, width, axes, heads)
        one_axis(self)
        self.scaling: Scaling | None = config.scaling.build() if config.scaling else None

    def angles(self, coords: Tensor, width: int) -> tuple[Tensor, Tensor]:
        pairs = width // 2
        if pairs < 1:
            raise ConfigError(f"position 'rotary': heads of width {width} hold no pair to turn: choose fewer heads")
        found, factor = plain(pairs, self.config.base), 1.0
        if self.scaling is not None:
            found, factor = self.scaling.frequencies(pairs, self.config.base)
        angle = coords.double() * found.to(coords.device)  # [b n 1] * [pairs]
        return (angle.cos() * factor).float(), (angle.sin() * factor).float()
