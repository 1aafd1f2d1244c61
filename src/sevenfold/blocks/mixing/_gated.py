"""What AlphaFold's attentions share: queries, keys and values in heads, scores biased by a pair, and a gate on what comes out.

    y = sigmoid(x W_g + b_g) * softmax(Q K^T / sqrt(d_h) + norm(z) W_b + M) V,   out = y W_o          b_g = 1, W_g = 0 first

Jumper 2021, doi:10.1038/s41586-021-03819-2, supplement, algorithms 7, 8, 13, 14.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.mixing import Mixer, Project, allowed, default_heads
from sevenfold.blocks.mixing.attention import biased, turn
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Constant, Rule, Ruled
from sevenfold.core.types import Hidden, Mask, wide


class Gate(Ruled):
    """sigmoid(W x + b), [… width_in] → [… width_out]; it begins open (W = 0, b = 1: sigmoid(1) = 0.73)."""

    def __init__(self, width_in: int, width_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width_out, width_in))
        self.bias = nn.Parameter(torch.empty(width_out))
        self.begin()

    def rules(self) -> dict[str, Rule]:
        return {"weight": Constant(0.0), "bias": Constant(1.0)}

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias).sigmoid()


class Gated(Mixer):
    """Gated attention of each token of a group to its group. A group is the whole row of a batch unless a part cuts it
    into lines (`_lines`, `_whole`)."""

    class Config(Mixer.Config):
        heads: int | None = Field(None, ge=1, le=4096)
        """How many heads; the width must be a multiple unless head_width is given. By default heads of width 64 (32
        in trunks narrower than 256), or as near as divides."""
        head_width: int | None = Field(None, ge=1)
        """Width of one head; by default width / heads."""

    continues = False

    def __init__(self, config: Any, width: int, project: Project | None = None, pair_width: int | None = None):
        super().__init__(config, width, project)
        self.heads: int = config.heads or default_heads(width)
        if config.head_width is None and width % self.heads:
            raise ConfigError(f"{config.kind}: {self.heads} heads do not divide the width {width}")
        self.head_width = config.head_width or width // self.heads
        self.inner, self.pair_width = self.heads * self.head_width, pair_width
        self.qkv = self.project(width, 3 * self.inner)
        self.gate = Gate(width, self.inner)
        self.out = self.project(self.inner, width)
        self.pair_norm = nn.LayerNorm(pair_width) if pair_width else None
        self.pair_bias = self.project(pair_width, self.heads) if pair_width else None

    def rules(self) -> dict[str, Rule]:
        return {name: Constant(float(name.endswith("weight"))) for name in self.own_parameters()}

    @property
    def rotated(self) -> int | None:
        return self.head_width

    def _lines(self, part: Tensor, grid: tuple[int, int] | None) -> Tensor:
        """[b n …] → [groups m …]."""
        return part

    def _whole(self, part: Tensor, grid: tuple[int, int] | None) -> Tensor:
        """[groups m …] → [b n …]."""
        return part

    def _inside(self, hidden: Hidden) -> Hidden:
        """The groups as rows of a batch."""
        angles = {
            width: (self._lines(cos, hidden.grid), self._lines(sin, hidden.grid))
            for width, (cos, sin) in (hidden.angles or {}).items()
        }
        return hidden.each(lambda part: self._lines(part, hidden.grid))._replace(angles=angles or None, grid=None)

    def _heads(self, inner: Hidden) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v [groups h m d_h]."""
        q, k, v = self.qkv(inner.x).unflatten(-1, (3 * self.heads, self.head_width)).transpose(1, 2).chunk(3, dim=1)
        if inner.angles is not None:
            cos, sin = inner.angles[self.head_width]
            q, k = turn(q, cos, sin), turn(k, cos, sin)
        return q, k, v

    def _added(self, inner: Hidden, mask: Mask, dtype: torch.dtype) -> Tensor | None:
        """What is added to scores [groups h m m] (or a boolean mask, or None): the pair, the position, who may be seen."""
        seen, bias = allowed(inner, mask), None
        if inner.bias is not None and inner.coords is not None:
            bias = inner.bias(inner.coords, inner.coords, self.heads)
        if self.pair_norm is not None and self.pair_bias is not None and inner.pair is not None:
            bias_of_pair = self.pair_bias(self.pair_norm(inner.pair)).movedim(-1, 1)
            lines = len(inner.x) // len(inner.pair)
            if lines > 1:
                bias_of_pair = bias_of_pair.repeat_interleave(lines, 0)
            bias = bias_of_pair if bias is None else bias + bias_of_pair
        return seen if bias is None else biased(bias, seen, dtype)

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        inner = self._inside(hidden)
        q, k, v = self._heads(inner)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self._added(inner, mask, q.dtype))
        return self._whole(self.out(y.transpose(1, 2).flatten(2) * self.gate(inner.x)), hidden.grid)

    def _weights(self, inner: Hidden, mask: Mask) -> Tensor:
        """[groups h m m], summing to 1."""
        q, k, _ = self._heads(inner)
        score = (wide(q) @ wide(k).transpose(-1, -2)) * self.head_width**-0.5
        added = self._added(inner, mask, score.dtype)
        if added is not None:
            score = score.masked_fill(~added, float("-inf")) if added.dtype == torch.bool else score + added
        return score.softmax(-1)

    def flops(self, tokens: int, attended: int) -> int:
        pair = 2 * attended**2 * (self.pair_width or 0) * self.heads
        return 10 * tokens * self.width * self.inner + 4 * tokens * attended * self.inner + pair

    def _scored(self, tokens: int, attended: int) -> int:
        """Numbers kept where scores are biased. Of one head the values lie in the joint projection, kept whole."""
        return (8 if self.heads == 1 else 6) * tokens * self.inner + tokens * attended * self.heads

    def kept(self, tokens: int, attended: int) -> int:
        if self.pair_width is None:
            return tokens * (6 * self.inner + self.heads)
        return self._scored(tokens, attended) + attended**2 * (self.pair_width + 2)

    def cached(self, tokens: int) -> int:
        return 0
