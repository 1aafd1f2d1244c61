"""Cross-attention: tokens ask, an earlier trunk's tokens answer.

    y = softmax(Q K^T / sqrt(d_h)) V,   Q = x W_q,   K V = memory W_kv,   out = y W_o

Vaswani 2017, arXiv:1706.03762 section 3.2.3. T5 (unscaled), Whisper, latent diffusion's text conditioning. A row whose
memory is all padding gets 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from sevenfold.blocks.mixing import Mixer, Project, default_heads
from sevenfold.blocks.projection import Projection
from sevenfold.core.cut import Seams
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Hidden, Mask, wide


class Memory(NamedTuple):
    """What a step needs of the memory: k, v [b h m d_h], or None before the first step."""

    k: Tensor | None
    v: Tensor | None


class Cross(Mixer):
    class Config(Mixer.Config):
        heads: int | None = Field(None, ge=1, le=4096)
        """How many heads; the width must be a multiple unless head_width is given. By default heads of width 64 (32
        in trunks narrower than 256), or as near as divides."""
        head_width: int | None = Field(None, ge=1)
        """Width of one head; by default width / heads."""
        memory_width: int | None = Field(None, ge=1)
        """Width of the memory's vectors; by default the trunk's own width."""
        scale: float | None = Field(None, gt=0)
        """What scores are multiplied by; by default 1/sqrt(d_h). T5 has 1."""
        query: Projection.Config | None = None
        """What queries are made by; by default as block.projection says."""
        key_value: Projection.Config | None = None
        """What keys and values are made by; by default as block.projection says."""
        out: Projection.Config | None = None
        """What the heads' outputs are joined by; by default as block.projection says."""
        dropout: float = Field(0.0, ge=0, lt=1)
        """Share of attention weights dropped in training."""

    crosses = spreads = True
    variants = (
        {"heads": 4, "memory_width": 12},
        {"heads": 3, "head_width": 10, "scale": 1.0, "key_value": {"kind": "linear", "bias": True}},
    )

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.heads: int = config.heads or default_heads(width)
        if config.head_width is None and width % self.heads:
            raise ConfigError(f"cross: {self.heads} heads do not divide the width {width}")
        self.head_width = config.head_width or width // self.heads
        self.score_scale = 1.0  # of the scores, beside 1/sqrt(head_width); an initialisation may set it
        own = (config.query, config.key_value, config.out)
        query, key_value, out = (made.build if made else self.project for made in own)
        self.query = query(width, self.inner)
        self.key_value = key_value(config.memory_width or width, 2 * self.inner)
        self.out = out(self.inner, width)

    def seams(self) -> Seams | None:
        """Some heads each; not where attention weights are dropped."""
        if self.config.dropout:
            return None
        reads = {"query": (self.inner,), "key_value": (self.inner, self.inner)}
        return Seams(self.heads, "heads", columnwise=reads, rowwise={"out": (self.inner,)})

    def keep_slice(self, slices: int) -> None:
        self.heads //= slices

    @property
    def inner(self) -> int:
        """Width of all heads together."""
        return self.heads * self.head_width

    @property
    def _scale(self) -> float:
        """What scores are multiplied by."""
        return (self.config.scale or self.head_width**-0.5) * self.score_scale

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _memory(self, hidden: Hidden) -> tuple[Tensor, Tensor]:
        k, v = self.key_value(hidden.memory.x).chunk(2, dim=-1)
        return self._split(k), self._split(v)

    def _attend(self, hidden: Hidden, k: Tensor, v: Tensor) -> Tensor:
        seen = None if hidden.memory.valid is None else hidden.memory.valid[:, None, None, :]
        dropout = self.config.dropout if self.training else 0.0
        if seen is not None:
            nothing = ~seen.any(-1, keepdim=True)
            seen = seen | nothing
        q = self._split(self.query(hidden.x))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout, scale=self._scale)
        y = self.out(y.transpose(1, 2).flatten(2))
        return y if seen is None else y.masked_fill(nothing[:, 0], 0.0)

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        return self._attend(hidden, *self._memory(hidden))

    def start(self, rows: int, length: int, like: Tensor) -> Memory:
        return Memory(None, None)

    def step(self, hidden: Hidden, state: Memory, mask: Mask) -> tuple[Tensor, Memory]:
        if state.k is None or state.v is None:
            state = Memory(*self._memory(hidden))
        assert state.k is not None and state.v is not None
        return self._attend(hidden, state.k, state.v), state

    def rewind(self, state: Memory, count: int) -> Memory:
        return state

    def weights(self, hidden: Hidden, mask: Mask = Mask(), rows: Tensor | None = None) -> Tensor:  # noqa: B008
        k, _ = self._memory(hidden)
        q = self._split(self.query(hidden.x))
        weights = (wide(q) @ wide(k).transpose(-1, -2)) * self._scale
        valid = hidden.memory.valid
        if valid is None:
            weights = weights.softmax(-1)
        else:
            nothing = ~valid.any(1)[:, None, None, None]
            weights = weights.masked_fill(~(valid[:, None, None, :] | nothing), float("-inf")).softmax(-1)
            weights = weights.masked_fill(nothing, 0.0)
        return weights if rows is None else weights[:, :, rows]

    def values(self, hidden: Hidden) -> Tensor | None:
        return self._memory(hidden)[1]

    def flops(self, tokens: int, attended: int) -> int:
        memory = self.config.memory_width or self.width
        return 4 * self.inner * (tokens * self.width + attended * memory + tokens * attended)

    def kept(self, tokens: int, attended: int) -> int:
        return tokens * (2 * self.inner + self.heads) + 2 * attended * self.inner

    def cached(self, tokens: int) -> int:
        return 2 * tokens * self.inner
