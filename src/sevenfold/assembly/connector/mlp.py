"""Two dense maps with a nonlinearity between two trunks.

    y = W_2 f(W_1 x + b_1) + b_2        f = gelu, as wide as y;   gated: y = W_2 (f(G x) * W_1 x)

LLaVA 1.5, arXiv:2310.03744 section 3.2.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sevenfold.assembly.connector import Connector
from sevenfold.blocks.nonlinearity import Nonlinearity
from sevenfold.blocks.projection.linear import Linear
from sevenfold.core import part
from sevenfold.core.errors import ConfigError


class MLP(Connector):
    class Config(Connector.Config):
        nonlinearity: Nonlinearity.Config = part.default("gelu")
        """f, and the width between the two maps; by default that of what is given out."""
        bias: bool = True
        """Whether b_1 and b_2 are there."""

    variants = ({"bias": False}, {"nonlinearity": {"kind": "swiglu", "inner": 20}}, {"nonlinearity": "relu"})

    def __init__(self, config: Any, width_in: int, width_out: int):
        super().__init__(config, width_in, width_out)
        between = config.nonlinearity
        if between.part.forward is not Nonlinearity.forward:
            raise ConfigError(f"connector: {between.kind!r} is no pointwise nonlinearity: choose gelu, silu, swiglu")
        if between.inner is None and between.expand is None:
            between = between.replace(inner=width_out)
        linear = Linear.Config(bias=config.bias)
        self.feed: Nonlinearity = between.build(width_in, linear.build)
        self.feed.out = linear.build(self.feed.inner, width_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.feed(x)

    def flops(self, tokens: int) -> int:
        return 2 * tokens * self.feed.inner * (self.width_in * (1 + self.feed.gated) + self.width_out)

    def kept(self, tokens: int) -> int:
        return self.feed.kept(tokens)
