"""Gated feed-forward without a nonlinear gate: a product of two linear maps.

    y = ((x W_gate) * (x W_value)) W_down

Shazeer 2020, arXiv:2002.05202 eq. 4 (Bilinear), after Mnih and Hinton 2007, doi:10.1145/1273496.1273577.
"""

from __future__ import annotations

from torch import Tensor

from sevenfold.blocks.nonlinearity import Nonlinearity


class Bilinear(Nonlinearity):
    class Config(Nonlinearity.Config):
        pass

    gated = True

    def activate(self, x: Tensor) -> Tensor:
        return x

    def kept(self, tokens: int) -> int:
        return 3 * tokens * self.inner  # the gate is the input itself
