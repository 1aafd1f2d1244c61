"""Feed-forward with the expanded integral of the exponential linear unit, whose two slopes are learned.

    y = f(x W_up) W_down,   f(x) = a x^2 + x/2 where x > 0,   c (e^x - 1 - x) + x/2 elsewhere
    a = softplus(alpha_p),   c = 1/2 + softplus(alpha_n)

Huang and Schlag 2024, arXiv:2411.13010 (xIELU): the gradient grows without bound on the right, and may turn negative on the
left. Apertus, whose code has min(x, -10^-6) in place of the x of e^x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sevenfold.blocks.nonlinearity import Nonlinearity
from sevenfold.blocks.projection import Projection
from sevenfold.core.initial import Constant, Rule

SLOPE, NEAREST = 0.5, -1e-6
"""The gradient at 0, and the largest x of which e^x - 1 is taken."""


class XIELU(Nonlinearity):
    class Config(Nonlinearity.Config):
        pass

    variants = ({"inner": 20},)

    def __init__(self, config: Any, width: int, project: Callable[[int, int], Projection] | None = None):
        super().__init__(config, width, project)
        self.alpha_p, self.alpha_n = nn.Parameter(torch.empty(1)), nn.Parameter(torch.empty(1))

    def rules(self) -> dict[str, Rule]:
        """Both slopes begin at 0.8."""
        first = {"alpha_p": 0.8, "alpha_n": 0.8 - SLOPE}
        return {name: Constant(math.log(math.expm1(value))) for name, value in first.items()}

    def activate(self, x: Tensor) -> Tensor:
        right, left = F.softplus(self.alpha_p).to(x.dtype), (SLOPE + F.softplus(self.alpha_n)).to(x.dtype)
        curve = torch.where(x > 0, right * x * x, left * (torch.expm1(x.clamp(max=NEAREST)) - x))
        return curve + SLOPE * x

    def kept(self, tokens: int) -> int:
        return 21 * tokens * self.inner // 4  # x, one of the right, two of the left, which, and f
