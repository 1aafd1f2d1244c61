"""Co-attention: in a trunk of several streams, the tokens of each attend to those of the others, not to their own.

    y_i = softmax_j(q_i k_j / sqrt(d_h)) v_j W_o   over the tokens j whose stream is another than that of token i

Lu 2019, arXiv:1908.02265 section 3.1 (ViLBERT); Tan 2019, arXiv:1908.07490 (LXMERT), whose two directions share their
projections as here; ViLBERT has them apart. In turn with `attention` blocks, which let all look at all. Class and
register tokens are a stream of their own. A token with nothing to read (under a causal mask: before any other stream)
reads itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sevenfold.blocks.mixing import allowed
from sevenfold.blocks.mixing.attention import Attention, biased
from sevenfold.core.types import Hidden, Mask, wide


class Past(NamedTuple):
    """What a step needs: keys and values [b kv t d_h], and everything else of the tokens so far (x [b t 0])."""

    k: Tensor
    v: Tensor
    tokens: Hidden | None


class CoAttention(Attention):
    spreads = False

    class Config(Attention.Config):
        pass

    caches = False
    narrow = True
    needs = frozenset({"streams"})
    heeds = frozenset()

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        q, k, v = self._heads(hidden)
        y = self._attend(q, k, v, self._seen(hidden, mask, 0, q.dtype))
        return self.out(y.transpose(1, 2).flatten(2))

    def _others(self, hidden: Hidden, mask: Mask) -> Tensor:
        """[b 1 n n] bool."""
        assert hidden.streams is not None, "a trunk gives the streams of its tokens"
        other = (hidden.streams[:, :, None] != hidden.streams[:, None, :])[:, None]
        seen = allowed(hidden, self._narrowed(mask))
        other = other if seen is None else other & seen
        itself = torch.eye(other.shape[-1], dtype=torch.bool, device=other.device)
        return other | (itself & ~other.any(-1, keepdim=True))

    def _seen(self, hidden: Hidden, mask: Mask, start: int, dtype: torch.dtype) -> Tensor:
        """The mask of the tokens from `start`, with the bias of the position."""
        seen = self._others(hidden, mask)[:, :, start:]
        if hidden.bias is None or hidden.coords is None:
            return seen
        return biased(hidden.bias(hidden.coords[:, start:], hidden.coords, self.heads), seen, dtype)

    def start(self, rows: int, length: int, like: Tensor, *cache: Any) -> Past:
        empty = like.new_zeros(rows, self.kv, 0, self.head_width)
        return Past(empty, empty, None)

    def step(self, hidden: Hidden, state: Past, mask: Mask) -> tuple[Tensor, Past]:
        q, k, v = self._heads(hidden)
        k, v = torch.cat([state.k.to(k.dtype), k], 2), torch.cat([state.v.to(v.dtype), v], 2)
        shape, device = hidden.x.shape[:2], hidden.x.device
        now = Hidden(
            hidden.x[:, :, :0],
            hidden.coords,
            torch.ones(shape, dtype=torch.bool, device=device) if hidden.valid is None else hidden.valid,
            torch.zeros(shape, dtype=torch.long, device=device) if hidden.segments is None else hidden.segments,
            streams=hidden.streams,
        )
        tokens = now if state.tokens is None else joined(state.tokens, now)
        seen = self._seen(tokens._replace(bias=hidden.bias), mask, tokens.x.shape[1] - shape[1], q.dtype)
        y = self._attend(q, k, v, seen)
        return self.out(y.transpose(1, 2).flatten(2)), Past(k, v, tokens)

    def rewind(self, state: Past, count: int) -> Past | None:  # type: ignore[override]
        left = state.k.shape[2] - count
        tokens = state.tokens if state.tokens is None else state.tokens.each(lambda part: part[:, :left])
        return Past(state.k[:, :, :left], state.v[:, :, :left], tokens)

    def weights(self, hidden: Hidden, mask: Mask = Mask(), rows: Tensor | None = None) -> Tensor:  # noqa: B008
        q, k, _ = self._heads(hidden)
        k = k.repeat_interleave(self.heads // self.kv, dim=1)
        score = (wide(q) @ wide(k).transpose(-1, -2)) * self._scale
        if hidden.bias is not None and hidden.coords is not None:
            score = score + hidden.bias(hidden.coords, hidden.coords, self.heads)
        weights = score.masked_fill(~self._others(hidden, mask), float("-inf")).softmax(-1)
        return weights if rows is None else weights[:, :, rows]

    def cached(self, tokens: int) -> int:
        return 2 * tokens * self.kv * self.head_width

    def kept(self, tokens: int, attended: int) -> int:
        return super().kept(tokens, attended) + tokens * attended


def joined(first: Hidden, second: Hidden) -> Hidden:
    """What is known of tokens, and of those after them."""

    def both(a: Any, b: Any) -> Any:
        return None if a is None or b is None else torch.cat([a, b], 1)

    names = ("x", "coords", "valid", "segments", "streams")
    return Hidden(**{name: both(getattr(first, name), getattr(second, name)) for name in names})
