"""Sliding-window attention with global tokens, in blocks: time and memory grow with tokens times window, not squared.

    y_i = sum_j softmax_j(q_i k_j / sqrt(d_h)) v_j  over  { j : |i - j| < w  or  j in G  or  i in G },   Q K V = x W_qkv

G are the first `global_tokens` tokens of a row (of each packed document): all see them, and they see all. Under a causal
mask nothing later is seen, by them neither. Queries go in blocks, each against the keys that its window reaches and the
global ones. Beltagy 2020, arXiv:2004.05150 section 3; Zaheer 2020, arXiv:2007.14062 (BigBird). Longformer has separate
projections for what global tokens ask and read; here they share those of all tokens, so that its global attention is ours
only where the two are equal. A sliding window alone is in Mistral 7B, Gemma 2 and 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from sevenfold.blocks.mixing import Mixer, Project, default_heads
from sevenfold.blocks.mixing._marks import NOWHERE, Marks, marked, picked
from sevenfold.blocks.mixing._windows import windows
from sevenfold.blocks.mixing.attention import biased, turn
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Hidden, Mask, take, wide


class Window(NamedTuple):
    """What a step needs: the last `window` keys and values [b h w d_h] and those of the document's global tokens."""

    k: Tensor
    v: Tensor
    coords: Tensor | None
    marks: Marks
    global_k: Tensor
    global_v: Tensor
    global_coords: Tensor | None
    global_marks: Marks
    used: int


class LocalGlobal(Mixer):
    class Config(Mixer.Config):
        heads: int | None = Field(None, ge=1, le=4096)
        """How many heads; the width must be a multiple. By default heads of width 64 (32 in trunks narrower than 256),
        or as near as divides."""
        window: int = Field(256, ge=1, le=1 << 20)
        """Tokens see those less than this many places away: window - 1 before and, unless causal, as many after."""
        global_tokens: int = Field(0, ge=0, le=1024)
        """So many tokens at the beginning of a row (class and register tokens come first) see all and are seen by all."""
        block: int | None = Field(None, ge=1)
        """Queries that go together; by default half a window, but at least 16."""
        dropout: float = Field(0.0, ge=0, lt=1)
        """Share of attention weights dropped in training."""

    narrow = True
    variants = (
        {"heads": 4, "window": 3, "block": 2},
        {"window": 2, "global_tokens": 3, "block": 1},
        {"heads": 2, "window": 5, "global_tokens": 1, "block": 3},
    )

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.heads: int = config.heads or default_heads(width)
        if width % self.heads:
            raise ConfigError(f"local_global: {self.heads} heads do not divide the width {width}")
        self.head_width = width // self.heads
        self.qkv = self.project(width, 3 * width)
        self.out = self.project(width, width)

    @property
    def rotated(self) -> int | None:
        return self.head_width

    def _heads(self, hidden: Hidden) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v [b h n d_h], turned."""
        q, k, v = (t.transpose(1, 2) for t in self.qkv(hidden.x).unflatten(-1, (3, self.heads, -1)).unbind(2))
        if hidden.angles is not None:
            cos, sin = hidden.angles[self.head_width]
            q, k = turn(q, cos, sin), turn(k, cos, sin)
        return q, k, v

    def _sizes(self, tokens: int) -> tuple[int, int, int]:
        """(tokens of a block, blocks, tokens that a block reads before itself)."""
        size = min(tokens, self.config.block or max(16, self.config.window // 2))
        blocks = -(-tokens // size)
        return size, blocks, min(self.config.window - 1, (blocks - 1) * size)

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        q, k, v = self._heads(hidden)
        size, blocks, before = self._sizes(n := q.shape[2])
        padded, span = blocks * size, size + before + (0 if mask.causal else before)
        marks = marked(hidden)
        asking = marks.each(lambda part: F.pad(part, (0, padded - n)).unflatten(1, (blocks, size)))
        asking = asking._replace(place=torch.arange(padded, device=q.device).view(1, blocks, size))
        reach = (before, padded - size + span - before - n)
        told = marks.each(lambda part: F.pad(part, reach).unfold(1, span, size))
        told = told._replace(place=torch.arange(-before, n + reach[1], device=q.device).unfold(0, span, size)[None])
        distance = asking.place[:, :1, :, None] - told.place[:, :1, None, :]  # the same in each block
        seen = self._seen(distance, asking, told, mask.causal, everything=blocks == 1)
        keys, values = (windows(t, before, size, span, blocks) for t in (k, v))
        coords = None if hidden.bias is None else hidden.coords
        reached = None if coords is None else F.pad(coords, (0, 0, *reach)).unfold(1, span, size).transpose(2, 3)
        if self.config.global_tokens and blocks > 1:
            index, first = self._first(marks, size)
            first = first._replace(place=torch.where(first.place < told.place[:, :, :1], first.place, NOWHERE))
            distance = asking.place[..., :, None] - first.place[..., None, :]
            seen = torch.cat([self._seen(distance, asking, first, mask.causal).expand(*seen.shape[:3], -1), seen], 3)
            keys, values = (torch.cat([picked(t, index), whole], 3) for t, whole in ((k, keys), (v, values)))
            if coords is not None and reached is not None:
                here = take(coords, index.flatten(1).expand(len(coords), -1)).unflatten(1, index.shape[1:])
                reached = torch.cat([here, reached], 2)
        q_blocks = F.pad(q, (0, 0, 0, padded - n)).unflatten(2, (blocks, size))
        if coords is not None and reached is not None and hidden.bias is not None:
            own = F.pad(coords, (0, 0, 0, padded - n)).unflatten(1, (blocks, size))
            bias = hidden.bias(own.flatten(0, 1), reached.flatten(0, 1), self.heads)
            seen = biased(bias, seen.expand(len(coords), -1, -1, -1).flatten(0, 1)[:, None], q.dtype)
        elif len(seen) > 1:
            seen = seen.flatten(0, 1)[:, None]
        else:
            seen = seen[0][:, None]
        if len(seen) == blocks:  # one mask for all rows: rows stand beside heads
            q_blocks, keys, values = (t.permute(2, 0, 1, 3, 4).flatten(1, 2) for t in (q_blocks, keys, values))
            if seen.shape[1] > 1:
                seen = seen.repeat(1, len(q), 1, 1)
            y = self._attend(q_blocks, keys, values, seen).unflatten(1, (len(q), self.heads)).transpose(0, 1)
        else:
            q_blocks, keys, values = (t.transpose(1, 2).flatten(0, 1) for t in (q_blocks, keys, values))
            y = self._attend(q_blocks, keys, values, seen).unflatten(0, (len(q), blocks))
        y = y.permute(0, 1, 3, 2, 4).flatten(1, 2)[:, :n]
        if self.config.global_tokens and not mask.causal and blocks > 1:
            y = self._global(q, k, v, y, marks, hidden)
        return self.out(y.flatten(2))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        dropout = self.config.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)

    def _first(self, marks: Marks, size: int) -> tuple[Tensor, Marks]:
        """The global tokens of the document that each block begins in: their index [b blocks g], and marks."""
        n, count = marks.place.shape[1], self.config.global_tokens
        index = marks.origin[:, ::size, None] + torch.arange(count, device=marks.place.device)
        inside, index = index < n, index.clamp(max=n - 1)
        found = marks.each(lambda part: part.expand(len(index), -1).gather(1, index.flatten(1)).view_as(index))
        return index, found._replace(valid=found.valid & inside)

    def _seen(self, distance: Tensor, asking: Marks, told: Marks, causal: bool, everything: bool = False) -> Tensor:
        """[… n m]: who may look at whom, that far away. `everything`: also what global tokens ask (not only tell)."""
        near = (distance < self.config.window) & (distance >= 0 if causal else distance > -self.config.window)
        count = self.config.global_tokens
        if count:
            wide = (told.place - told.origin < count)[..., None, :]
            if everything:
                wide = wide | (asking.place - asking.origin < count)[..., :, None]
            near = near | (wide & (distance >= 0) if causal else wide)
        near = near & (told.valid & (told.place > NOWHERE))[..., None, :]
        return (near & (asking.segment[..., :, None] == told.segment[..., None, :])) | (distance == 0)

    def _global(self, q: Tensor, k: Tensor, v: Tensor, y: Tensor, marks: Marks, hidden: Hidden) -> Tensor:
        """y [b n h d_h] with what the global tokens read of their whole document."""
        n, count = q.shape[2], self.config.global_tokens
        origin, rank = marks.origin.expand(len(q), -1), (marks.place - marks.origin).expand(len(q), -1)
        coords = None if hidden.bias is None else hidden.coords
        if hidden.segments is None:
            index = (origin[:, -1:] + torch.arange(count, device=q.device)).clamp(max=n - 1)
            seen: Tensor = marks.valid[:, None, None, :] | (index[:, None, :, None] == marks.place[:, None, None, :])
            if coords is not None and hidden.bias is not None:
                seen = biased(hidden.bias(take(coords, index), coords, self.heads), seen, q.dtype)
            found = self._attend(picked(q, index), k, v, seen).transpose(1, 2)
            read = take(found, rank.clamp(0, count - 1))
            return torch.where(((rank >= 0) & (rank < count) & (origin == origin[:, -1:]))[..., None, None], read, y)
        for number in range(count):  # each key with the one such query of its own document, summed by document
            index = (origin + number).clamp(max=n - 1)
            score = (wide(picked(q, index)) * wide(k)).sum(-1) * self.head_width**-0.5
            if coords is not None and hidden.bias is not None:
                pairs = hidden.bias(
                    take(coords, index).flatten(0, 1)[:, None], coords.flatten(0, 1)[:, None], self.heads
                )
                score = score + pairs.view(len(coords), n, self.heads).transpose(1, 2)
            score = score.masked_fill(~marks.valid[:, None], -1e30)
            where = origin[:, None].expand_as(score)
            most = torch.full_like(score, -1e30).scatter_reduce(2, where, score.detach(), "amax")
            part = F.dropout((score - most.gather(2, where)).exp(), self.config.dropout, self.training)
            total = torch.zeros_like(score).scatter_add(2, where, (score - most.gather(2, where)).exp())
            wider = where[..., None].expand_as(v)
            read = torch.zeros_like(wide(v)).scatter_add(2, wider, part[..., None] * wide(v)).gather(2, wider)
            read = (read / total.gather(2, where)[..., None]).to(y.dtype).transpose(1, 2)
            y = torch.where((rank == number)[..., None, None], read, y)
        return y

    def start(self, rows: int, length: int, like: Tensor) -> Window:
        def empty(tokens: int) -> tuple[Tensor, Marks]:
            numbers = torch.full((rows, tokens), NOWHERE, dtype=torch.long, device=like.device)
            marks = Marks(numbers, numbers, numbers, torch.zeros_like(numbers, dtype=torch.bool))
            return like.new_zeros(rows, self.heads, tokens, self.head_width), marks

        near, far = empty(min(self.config.window, length)), empty(min(self.config.global_tokens, length))
        return Window(near[0], near[0].clone(), None, near[1], far[0], far[0].clone(), None, far[1], 0)

    def step(self, hidden: Hidden, state: Window, mask: Mask) -> tuple[Tensor, Window]:
        q, k, v = self._heads(hidden)
        marks, found = marked(hidden, state.marks, state.used), []
        coords = None if hidden.bias is None else hidden.coords
        for start in range(0, q.shape[2], self.config.window):  # long pieces go in windows: nothing is squared
            now = slice(start, start + self.config.window)
            here = None if coords is None else coords[:, now]
            part = Marks(*(mark[:, now] for mark in marks))
            y, state = self._step(q[:, :, now], k[:, :, now], v[:, :, now], part, here, hidden, state)
            found.append(y)
        return self.out(torch.cat(found, 2).transpose(1, 2).flatten(2)), state

    def _step(
        self, q: Tensor, k: Tensor, v: Tensor, marks: Marks, coords: Tensor | None, hidden: Hidden, state: Window
    ) -> tuple[Tensor, Window]:
        """At most `window` tokens."""
        whole = Marks(*(torch.cat([a, b], 1) for a, b in zip(state.marks, marks)))
        keys, values = torch.cat([state.k, k], 2), torch.cat([state.v, v], 2)
        far = state.global_marks
        oldest = torch.where(whole.place > NOWHERE, whole.place, state.used + q.shape[2]).amin(1, keepdim=True)
        far = far._replace(place=torch.where(far.place < oldest, far.place, NOWHERE))
        told = Marks(*(torch.cat([a, b], 1) for a, b in zip(far, whole)))
        seen = self._seen(marks.place[..., :, None] - told.place[..., None, :], marks, told, True)[:, None]
        near_coords = global_coords = None
        if coords is not None and hidden.bias is not None:
            near_coords = coords.new_zeros(*state.marks.place.shape, coords.shape[-1])
            global_coords = coords.new_zeros(*far.place.shape, coords.shape[-1])
            if state.coords is not None and state.global_coords is not None:
                near_coords, global_coords = state.coords, state.global_coords
            reached = torch.cat([near_coords, coords], 1)
            seen = biased(hidden.bias(coords, torch.cat([global_coords, reached], 1), self.heads), seen, q.dtype)
            near_coords = reached[:, -state.k.shape[2] :]
            global_coords = self._kept(state, marks, coords, global_coords)
        read_k, read_v = torch.cat([state.global_k, keys], 2), torch.cat([state.global_v, values], 2)
        y = self._attend(q, read_k.to(q.dtype), read_v.to(q.dtype), seen)
        room = state.k.shape[2]
        return y, Window(
            keys[:, :, -room:],
            values[:, :, -room:],
            near_coords,
            whole.each(lambda part: part[:, -room:]),
            self._kept(state, marks, k.transpose(1, 2), state.global_k.transpose(1, 2)).transpose(1, 2),
            self._kept(state, marks, v.transpose(1, 2), state.global_v.transpose(1, 2)).transpose(1, 2),
            global_coords,
            Marks(*(self._kept(state, marks, new, old) for new, old in zip(marks, state.global_marks))),
            state.used + q.shape[2],
        )

    def _kept(self, state: Window, marks: Marks, new: Tensor, old: Tensor) -> Tensor:
        """What is remembered [b g …] of the global tokens of the document that the last of `new` [b k …] is in."""
        n, origin = new.shape[1], marks.origin[:, -1:]
        index = origin + torch.arange(old.shape[1], device=new.device) - state.used
        here = (index >= 0) & (index < n)
        same = (state.global_marks.origin == origin) & (state.global_marks.place > NOWHERE)
        shape = (...,) + (None,) * (new.dim() - 2)
        blank = torch.full_like(old, NOWHERE if old.dtype == torch.long and old.dim() == 2 else 0)
        found = torch.where(same[shape], old, blank)
        return torch.where(here[shape], take(new, index.clamp(0, n - 1)).to(old.dtype), found)

    def flops(self, tokens: int, attended: int) -> int:
        size, blocks, before = self._sizes(tokens)
        reached = size + before + (self.config.global_tokens if blocks > 1 else 0)
        return 8 * tokens * self.width**2 + 4 * blocks * size * reached * self.width

    def kept(self, tokens: int, attended: int) -> int:
        size, blocks, before = self._sizes(tokens)
        padded, count = blocks * size, self.config.global_tokens
        told = padded + before
        if count and blocks > 1:
            told = blocks * (size + before + count) + tokens + tokens // 2
        joined = tokens * self.width if self.heads > 1 else 0
        return 2 * (padded + told) * self.width + padded * self.heads + joined

    def scratch(self, tokens: int, attended: int) -> int:
        """The gradients of all windows of keys and values, and of queries, keys and values."""
        size, blocks, before = self._sizes(tokens)
        reached = size + before + (self.config.global_tokens if blocks > 1 else 0)
        return max(super().scratch(tokens, attended), (2 * reached + 3 * size) * blocks * self.width)

    def cached(self, tokens: int) -> int:
        return 2 * self.width * (min(self.config.window, tokens) + min(self.config.global_tokens, tokens))

    def weights(self, hidden: Hidden, mask: Mask = Mask(), rows: Tensor | None = None) -> Tensor:  # noqa: B008
        q, k, _ = self._heads(hidden)
        rows = torch.arange(q.shape[2], device=q.device) if rows is None else rows
        marks = marked(hidden)
        distance = marks.place[:, rows, None] - marks.place[:, None, :]
        seen = self._seen(distance, marks.each(lambda part: part[:, rows]), marks, mask.causal, everything=True)
        score = (wide(q[:, :, rows]) @ wide(k).transpose(-1, -2)) * self.head_width**-0.5
        if hidden.bias is not None and hidden.coords is not None:
            score = score + hidden.bias(hidden.coords[:, rows], hidden.coords, self.heads)
        return score.masked_fill(~seen[:, None], float("-inf")).softmax(-1)

    def values(self, hidden: Hidden) -> Tensor:
        return self._heads(hidden)[2]
