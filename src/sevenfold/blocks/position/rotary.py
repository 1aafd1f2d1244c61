"""Rotary: queries and keys are turned by angles proportional to their position, so scores see differences only.

    (x_i, x_{i+d/2}) <- R(p w_i) (x_i, x_{i+d/2}),   w_i = base^(-2i/d);   <R_n q, R_m k> depends on n - m

Norms are kept. Angles are made in float64: in float32 they are 2e-2 off at position 10^6. Su 2021, arXiv:2104.09864
(pairs in halves, as in Llama). Llama, Mistral, Qwen, ESM-2, ModernBERT.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.blocks.position import Position, one_axis
from sevenfold.core.errors import ConfigError


class Rotary(Position):
    class Config(Position.Config):
        base: float = Field(10000.0, gt=1)
        """The longest wavelength is about 2 pi base."""

    def __init__(self, config: Any, width: int, axes: int):
        super().__init__(config, width, axes)
        one_axis(self)

    def angles(self, coords: Tensor, width: int) -> tuple[Tensor, Tensor]:
        pairs = width // 2
        steps = torch.arange(pairs, dtype=torch.float64, device=coords.device) / pairs
        if pairs < 1:
            raise ConfigError(f"position 'rotary': heads of width {width} hold no pair to turn: choose fewer heads")
        angle = coords.double() * self.config.base**-steps  # [b n 1] * [pairs]
        return angle.cos().float(), angle.sin().float()
