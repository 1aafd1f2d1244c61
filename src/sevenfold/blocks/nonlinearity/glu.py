"""Gated feed-forward with a sigmoid gate: the gated linear unit.

    y = (sigmoid(x W_gate) * x W_value) W_down

Dauphin 2016, arXiv:1612.08083 eq. 1; as a feed-forward part Shazeer 2020, arXiv:2002.05202 eq. 4.
"""

from __future__ import annotations

from torch import Tensor

from sevenfold.blocks.nonlinearity import Nonlinearity


class GLU(Nonlinearity):
    class Config(Nonlinearity.Config):
        pass

    gated = True

    def activate(self, x: Tensor) -> Tensor:
        return x.sigmoid()
