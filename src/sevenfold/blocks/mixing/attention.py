"""Multi-head self-attention: full, causal, prefix, windowed, packed; with grouped queries and query-key norm.

    y = softmax(M + Q K^T / sqrt(d_h)) V,   Q K V = x W_qkv,   out = y W_o          4 d^2 weights for any number of heads

Vaswani 2017, arXiv:1706.03762 eq. 1; grouped queries Ainslie 2023, arXiv:2305.13245; query-key norm Henry 2020,
arXiv:2010.04245. GPT-2, BERT, ViT, Llama, ESM-2 and most others.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.mixing import Mixer, Project, _rows, allowed, default_heads
from sevenfold.blocks.mixing._documents import within
from sevenfold.blocks.mixing.cache import Cache, Kept, cache_of
from sevenfold.blocks.projection import Projection
from sevenfold.core import ranks
from sevenfold.core.cut import Seams
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Constant, Rule
from sevenfold.core.types import Hidden, Mask, wide


class Attention(Mixer):
    class Config(Mixer.Config):
        heads: int | None = Field(None, ge=1, le=4096)
        """How many heads; the width must be a multiple unless head_width is given. By default heads of width 64 (32
        in trunks narrower than 256), or as near as divides."""
        kv_heads: int | None = Field(None, ge=1)
        """Key and value heads shared by groups of query heads; by default as many as heads."""
        head_width: int | None = Field(None, ge=1)
        """Width of one head; by default width / heads."""
        query_key_norm: bool = False
        """Root-mean-square norm of each query and key, with a learned scale."""
        norm_eps: float = Field(1e-6, ge=0)
        """Added to the mean square in that norm."""
        norm_across: bool = False
        """That norm is over all heads of a token together, before they are told apart (OLMo 2)."""
        window: int | None = Field(None, ge=1)
        """Tokens see those less than this many places away, if the trunk's mask says no less."""
        scale: float | None = Field(None, gt=0)
        """What scores are multiplied by; by default 1/sqrt(d_h). T5 has 1."""
        qkv: Projection.Config | None = None
        """What queries, keys and values are made by; by default as block.projection says."""
        out: Projection.Config | None = None
        """What the heads' outputs are joined by; by default as block.projection says."""
        dropout: float = Field(0.0, ge=0, lt=1)
        """Share of attention weights dropped in training."""

    caches = spreads = True
    heeds = frozenset({"window", "prefix"})
    variants = (
        {"heads": 4, "kv_heads": 2, "window": 3, "scale": 1.0},
        {"heads": 3, "head_width": 10, "query_key_norm": True},
        {
            "heads": 4,
            "kv_heads": 2,
            "query_key_norm": True,
            "norm_across": True,
            "out": {"kind": "linear", "bias": True},
        },
    )

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.heads: int = config.heads or default_heads(width)
        self.kv = config.kv_heads or self.heads
        if config.head_width is None and width % self.heads:
            raise ConfigError(f"attention: {self.heads} heads do not divide the width {width}")
        if self.heads % self.kv:
            raise ConfigError(f"attention: {self.kv} kv_heads do not divide {self.heads} heads")
        self.head_width = config.head_width or width // self.heads
        self.score_scale = 1.0  # of the scores, beside 1/sqrt(head_width); an initialisation may set it
        qkv, out = (made.build if made else self.project for made in (config.qkv, config.out))
        self.qkv = qkv(width, (self.heads + 2 * self.kv) * self.head_width)
        self.out = out(self.heads * self.head_width, width)
        self.narrow = type(self).narrow or config.window is not None
        self.query_norm = self.key_norm = None
        if config.query_key_norm:
            together = (self.heads, self.kv) if config.norm_across else (1, 1)
            self.query_norm, self.key_norm = (
                nn.RMSNorm(count * self.head_width, eps=config.norm_eps) for count in together
            )

    def rules(self) -> dict[str, Rule]:
        return {name: Constant(1.0) for name in self.own_parameters()}

    def seams(self) -> Seams | None:
        """Some heads each, with the keys and values that they read. Not with what is over all heads of a token, nor where
        attention weights are dropped, which would be the same ones in each part."""
        if self.config.norm_across and self.config.query_key_norm or self.config.dropout:
            return None
        sizes = [count * self.head_width for count in (self.heads, self.kv, self.kv)]
        unit = "heads" if self.kv == self.heads else "kv_heads"
        return Seams(self.kv, unit, columnwise={"qkv": (*sizes,)}, rowwise={"out": (sizes[0],)})

    def keep_slice(self, slices: int) -> None:
        self.heads, self.kv = self.heads // slices, self.kv // slices

    @property
    def rotated(self) -> int | None:
        return self.head_width

    @property
    def _scale(self) -> float:
        """What scores are multiplied by."""
        return (self.config.scale or self.head_width**-0.5) * self.score_scale

    @property
    def _own_scale(self) -> float | None:
        """The same; None where it is the kernels' own."""
        return None if self.config.scale is None and self.score_scale == 1 else self._scale

    @property
    def _dropout(self) -> float:
        """The share of weights that is dropped now."""
        return self.config.dropout if self.training else 0.0

    def _narrowed(self, mask: Mask) -> Mask:
        """The mask with its own window, where that is narrower."""
        own = self.config.window
        return mask if own is None else mask._replace(window=own if mask.window is None else min(own, mask.window))

    def _heads(self, hidden: Hidden) -> tuple[Tensor, Tensor, Tensor]:
        """q [b h n d_h], k and v [b kv n d_h], normed and turned."""
        return self._placed(self._projected(hidden.x), hidden)

    def _projected(self, x: Tensor) -> Tensor:
        """Queries, keys and values side by side, [b h+2kv n d_h]."""
        return self.qkv(x).view(*x.shape[:2], -1, self.head_width).transpose(1, 2)

    def _placed(self, qkv: Tensor, hidden: Hidden) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v, normed and turned."""
        q, k, v = qkv.split([self.heads, self.kv, self.kv], dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self._normed(q, self.query_norm).to(v.dtype), self._normed(k, self.key_norm).to(v.dtype)
        if hidden.angles is not None:
            cos, sin = hidden.angles[self.head_width]
            q, k = turn(q, cos, sin), turn(k, cos, sin)
        return q, k, v

    def _normed(self, x: Tensor, norm: nn.Module) -> Tensor:
        """x [b h n d_h], normed head by head, or all heads of a token together."""
        if not self.config.norm_across:
            return norm(x)
        return norm(x.transpose(1, 2).flatten(2)).unflatten(-1, (-1, self.head_width)).transpose(1, 2)

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        q, k, v = self._heads(hidden)
        mask = self._narrowed(mask)
        if hidden.whole is not None:
            return self._spread(q, k, v, hidden, mask)
        if mask.window is None and mask.prefix is None and hidden.bias is None:
            apart = within(self._attend, q, k, v, hidden, mask.causal, self._own_scale, self._dropout)
            if apart is not None:
                return self.out(apart.transpose(1, 2).flatten(2))
        plain = hidden.valid is None and hidden.segments is None and mask.window is None and mask.prefix is None
        causal = mask.causal and plain and hidden.bias is None
        seen = None if causal else allowed(hidden, mask)
        if hidden.bias is not None and hidden.coords is not None:
            seen = biased(hidden.bias(hidden.coords, hidden.coords, self.heads), seen, q.dtype)
        y = self._attend(q, k, v, seen, causal)
        return self.out(y.transpose(1, 2).flatten(2))

    def _spread(self, q: Tensor, k: Tensor, v: Tensor, hidden: Hidden, mask: Mask) -> Tensor:
        """The part of the tokens that this process has, of the keys and values of all."""
        whole: Hidden = hidden.whole
        k, v = (ranks.sequence().all_gather(part, 2) for part in (k, v))
        seen = allowed(whole, mask, slice(hidden.begin, hidden.begin + q.shape[2]))
        if hidden.bias is not None and hidden.coords is not None and whole.coords is not None:
            seen = biased(hidden.bias(hidden.coords, whole.coords, self.heads), seen, q.dtype)
        return self.out(self._attend(q, k, v, seen).transpose(1, 2).flatten(2))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, causal: bool = False) -> Tensor:
        plain = seen is None or seen.dtype == torch.bool
        if plain and not self._dropout and q.shape[1] == k.shape[1] and _rows.pays(q, k):
            return _rows.attend(q, k, v, self._scale, causal, seen)
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=seen,
            is_causal=causal,
            dropout_p=self._dropout,
            scale=self._own_scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )

    def start(
        self,
        rows: int,
        length: int,
        like: Tensor,
        cache: Cache.Config | str | None = None,
        mask: Mask = Mask(),  # noqa: B008
    ) -> Any:
        return cache_of(cache, self._narrowed(mask).window, length).start(length)

    def step(self, hidden: Hidden, state: Any, mask: Mask) -> tuple[Tensor, Any]:
        qkv, mask = self._projected(hidden.x), self._narrowed(mask)
        q, both = qkv[:, : self.heads], qkv[:, self.heads :]
        if self.query_norm is not None or hidden.angles is not None:
            q, k, v = self._placed(qkv, hidden)
            both = torch.cat([k, v], 1)
        read, state = state.cache.add(state, both, hidden)
        here, there = q.shape[2], read.k.shape[2]
        whole = here == there and (mask.window is None or here <= mask.window) and mask.prefix is None
        causal = whole and read.valid is None and read.segments is None and hidden.bias is None
        seen = None if causal else state.cache.seen(read, state, hidden, mask)
        if hidden.bias is not None and hidden.coords is not None:
            seen = biased(hidden.bias(hidden.coords, read.coords, self.heads), seen, q.dtype)
        if here == 1 and self.kv != self.heads:  # the queries of a group, as if they were tokens: nothing is repeated
            group = (len(q), self.kv, self.heads // self.kv, -1)
            seen = seen if seen is None or seen.shape[1] == 1 else seen.reshape(group)
            y = self._attend(q.reshape(group), read.k, read.v, seen)
        else:
            y = self._attend(q, read.k, read.v, seen, causal).transpose(1, 2)
        return self.out(y.reshape(*hidden.x.shape[:2], -1)), state

    def rewind(self, state: Any, count: int) -> Kept | None:
        kept: Kept = state
        return kept.cache.rewind(kept, count)

    def weights(self, hidden: Hidden, mask: Mask = Mask(), rows: Tensor | None = None) -> Tensor:  # noqa: B008
        q, k, _ = self._heads(hidden)
        k = k.repeat_interleave(self.heads // self.kv, dim=1)
        score = (wide(q) @ wide(k).transpose(-1, -2)) * self._scale
        seen = allowed(hidden, self._narrowed(mask))
        if hidden.bias is not None and hidden.coords is not None:
            score = score + hidden.bias(hidden.coords, hidden.coords, self.heads)
        if seen is not None:
            score = score.masked_fill(~seen, float("-inf"))
        weights = score.softmax(-1)
        return weights if rows is None else weights[:, :, rows]

    def values(self, hidden: Hidden) -> Tensor:
        return self._heads(hidden)[2].repeat_interleave(self.heads // self.kv, dim=1)

    def flops(self, tokens: int, attended: int) -> int:
        inner = self.heads * self.head_width
        projections = 2 * tokens * self.width * (2 * inner + 2 * self.kv * self.head_width)
        return projections + 4 * tokens * attended * inner

    def kept(self, tokens: int, attended: int) -> int:
        inner, shared = self.heads * self.head_width, self.kv * self.head_width
        normed = 2 * inner + 2 * shared + (2 if self.config.norm_across else inner)
        return tokens * (2 * inner + 2 * shared + normed * self.config.query_key_norm + self.heads)

    def scored(self, tokens: int, attended: int, causal: bool) -> tuple[int, int]:
        plain = self.heads == self.kv and not self.config.dropout
        return _rows.held(self.heads, tokens, attended, causal) if plain else (0, 0)

    def turned(self, tokens: int) -> int:
        joined = self.heads if self.heads > 1 else 0  # heads are side by side again
        return tokens * (self.heads + self.kv + joined) * self.head_width

    def cached(self, tokens: int) -> int:
        return 2 * min(tokens, self.config.window or tokens) * self.kv * self.head_width


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + d/2) of x [b h n d] by angles given as cos, sin [b n d/2]; an odd last channel stays."""
    half = cos.shape[-1]
    cos, sin = cos.unsqueeze(1).to(x.dtype), sin.unsqueeze(1).to(x.dtype)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)


def biased(bias: Tensor, seen: Tensor | None, dtype: torch.dtype) -> Tensor:
    """An additive mask from a position's bias and a boolean mask."""
    if seen is not None:
        bias = bias.masked_fill(~seen, float("-inf"))
    return bias.to(dtype)
