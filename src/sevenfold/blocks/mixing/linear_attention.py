"""Linear attention: scores are products of positive features, so that a sum replaces the matrix of weights.

    y_i = phi(q_i)^T S_i / (phi(q_i)^T z_i),   S_i = sum_{j<=i} phi(k_j) v_j^T,   z_i = sum_{j<=i} phi(k_j)
    phi(x) = elu(x) + 1                                                     without a causal mask: sums over all j

Katharopoulos 2020, arXiv:2006.16236 eq. 5-12. One thing in three forms: parallel (`weights`, O(n^2)), in chunks
(`forward`, O(n (C d_h + d_h^2)) for chunks of C) and recurrent (`step`, a state of d_h (d_h + 1) numbers a head). Sums are
in float32. Positions are not turned: the weights must stay positive.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.blocks.mixing import Project, allowed, default_heads
from sevenfold.blocks.mixing._scan import GROUP, NOWHERE, Recurrent, borders, exact, lean, linear, linear_flops, runs
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Hidden, Mask, wide

SMALLEST = 1e-6
"""The smallest sum of weights that is divided by."""


class LinearAttention(Recurrent):
    class Config(Recurrent.Config):
        heads: int | None = Field(None, ge=1, le=4096)
        """How many heads; the width must be a multiple. By default heads of width 64 (32 in trunks narrower than 256)."""
        chunk: int = Field(64, ge=1, le=4096)
        """Tokens in one chunk. Changes the speed, not the result."""

    variants = ({"heads": 4, "chunk": 5},)

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.inner_heads: int = config.heads or default_heads(width)
        if width % self.inner_heads:
            raise ConfigError(f"linear_attention: {self.inner_heads} heads do not divide the width {width}")
        self.head_width = width // self.inner_heads
        self.up = self.project(width, 3 * width)
        self.out = self.project(width, width)

    def _heads(self, u: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """phi(q), phi(k) [b h n d_h], 0 for keys at padding, and v with a column of ones [b h n d_h+1]."""
        q, k, v = wide(u).unflatten(-1, (3, self.inner_heads, self.head_width)).permute(2, 0, 3, 1, 4)
        k = features(k) if valid is None else features(k) * valid[:, None, :, None]
        return features(q), k, torch.cat([v, torch.ones_like(v[..., :1])], -1)

    def walk(self, u: Tensor, valid: Tensor | None, ids: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        q, k, v = self._heads(u, valid)
        s, last = (None, None) if state is None else state
        if s is None:
            s = k.new_zeros(len(u), self.inner_heads, self.head_width, self.head_width + 1)
        with exact(u):
            y, s = linear(q, k, v, torch.zeros_like(k[..., 0]), runs(ids, last), s, self.config.chunk)
        return y.transpose(1, 2), None if state is None else (s, last if ids is None else ids[:, -1])

    def passes(self, u: Tensor, valid: Tensor | None, ids: Tensor | None, causal: bool) -> Tensor:
        return lean(self._whole, u, valid) if ids is None and not causal else super().passes(u, valid, ids, causal)

    def _whole(self, u: Tensor, valid: Tensor | None) -> Tensor:
        """All tokens see all."""
        q, k, v = self._heads(u, valid)
        with exact(u):
            return self.gate((q @ (k.mT @ v)).transpose(1, 2), u)

    def summed(self, y: Tensor, back: Tensor, u: Tensor, valid: Tensor | None) -> Tensor:
        """Less what a token says to itself, which both passes have."""
        q, k, v = self._heads(u, valid)
        return self.gate(y + back - ((q * k).sum(-1, keepdim=True) * v).transpose(1, 2), u)

    def gate(self, y: Tensor, u: Tensor) -> Tensor:
        return (y[..., :-1] / y[..., -1:].clamp(min=SMALLEST)).flatten(2).to(u.dtype)

    def start(self, rows: int, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        s = wide(like.new_zeros(rows, self.inner_heads, self.head_width, self.head_width + 1))
        return s, torch.full((rows,), NOWHERE, dtype=torch.long, device=like.device)

    def weights(self, hidden: Hidden, mask: Mask = Mask(), rows: Tensor | None = None) -> Tensor:  # noqa: B008
        q, k, _ = self._heads(self.up(hidden.x), None)
        seen = allowed(hidden, mask)
        if rows is not None:
            q, seen = q[:, :, rows], None if seen is None else seen[:, :, rows]
        with exact(q):
            scores = q @ k.mT if seen is None else torch.where(seen, q @ k.mT, 0.0)
        return scores / scores.sum(-1, keepdim=True).clamp(min=SMALLEST)

    def values(self, hidden: Hidden) -> Tensor:
        return self._heads(self.up(hidden.x), None)[2][..., :-1]

    def flops(self, tokens: int, attended: int) -> int:
        d = self.head_width
        return 8 * tokens * self.width**2 + linear_flops(tokens, self.inner_heads, d, d + 1, self.config.chunk)

    def scratch(self, tokens: int, attended: int) -> int:
        group, size = min(tokens, GROUP), min(self.config.chunk, tokens)
        return group * (18 * self.width + 2 * self.inner_heads * size)

    def kept(self, tokens: int, attended: int) -> int:
        return 4 * tokens * self.width + borders(tokens) * self.cached(tokens)

    def cached(self, tokens: int) -> int:
        return self.width * (self.head_width + 1)


def features(x: Tensor) -> Tensor:
    """elu(x) + 1, without losing what is left of it far below 0."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())
