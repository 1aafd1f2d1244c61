"""Nonlinearities: the feed-forward part of a block, token by token.

    y = f(x W_up) W_down          gated:  y = f(x W_gate) * (x W_up) W_down

The contract of this room. A part says `activate` (and whether it is gated); one that is more than that (a mixture of
experts) overrides `forward`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from sevenfold.blocks.projection import Projection
from sevenfold.blocks.projection.linear import Linear
from sevenfold.core import part
from sevenfold.core.cut import Cuttable, Seams
from sevenfold.core.initial import Ruled


class Nonlinearity(part.Part, Ruled, Cuttable):
    """forward(x [… d], valid [b n] or None) → [… d]. `penalty`, where a part has one (the balance of experts), is [2]: the
    sum over the tokens of the training passes so far, and how many tokens they were. Every objective adds its mean to
    the mean loss, and sets it back to None."""

    room = "nonlinearity"

    class Config(part.Config):
        expand: float | None = Field(None, gt=0, le=64)
        """Inner width / width; by default 4, or 8/3 (rounded up to 8 channels) when gated: equal numbers of weights."""
        inner: int | None = Field(None, ge=1, le=1 << 24)
        """The inner width itself, instead of expand."""

    gated: ClassVar[bool] = False
    out: Projection
    penalty: Tensor | None = None

    def __init__(self, config: Any, width: int, project: Callable[[int, int], Projection] | None = None):
        super().__init__()
        project = project or Linear.Config().build
        self.config, self.width = config, width
        self.inner = config.inner or self._inner(width)
        self.up = project(width, self.inner * (2 if self.gated else 1))
        self.out = project(self.inner, width)

    def outputs(self) -> list[Projection]:
        """The last projections, to the trunk's width, which initialisation scales down with depth."""
        return [self.out]

    def seams(self) -> Seams | None:
        """Between any two inner channels; a part with a `forward` of its own says for itself where."""
        if type(self).forward is not Nonlinearity.forward:
            return None
        up = (self.inner,) * (2 if self.gated else 1)
        return Seams(self.inner, "inner channels", columnwise={"up": up}, rowwise={"out": (self.inner,)})

    def keep_slice(self, slices: int) -> None:
        self.inner //= slices

    def _inner(self, width: int) -> int:
        if self.config.expand is not None:
            return max(1, round(self.config.expand * width))
        return -(-8 * width // 24) * 8 if self.gated else 4 * width

    def activate(self, x: Tensor) -> Tensor:
        """The pointwise function."""
        raise NotImplementedError

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        if not self.gated:
            return self.out(self.activate(self.up(x)))
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.out(self.activate(gate) * value)

    def flops(self, tokens: int) -> int:
        """Multiply-adds ×2 of one forward pass over `tokens` vectors, by formula."""
        return 2 * tokens * self.width * self.inner * (3 if self.gated else 2)

    def scratch(self, tokens: int) -> int:
        """Numbers that it needs for a moment over `tokens` tokens, beside what is kept, by formula."""
        return 2 * self.inner * tokens * (2 if self.gated else 1)

    def kept(self, tokens: int) -> int:
        """Numbers kept for the backward pass over `tokens` tokens, beside what is given to it, by formula.

        By default for an `activate` that keeps its input: what goes into it and what comes out; gated: both halves of
        the input, the activated gate, and the product.
        """
        return tokens * self.inner * (4 if self.gated else 2)
