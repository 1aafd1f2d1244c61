"""A recurrent network whose state attends to annotations by an additive score: what attention was at first.

    h_t = (1 - z) n + z h_{t-1},  r z = sigmoid(W x + U h),  n = tanh(W_n x + r U_n h)
    y_i = [h_i, sum_j softmax_j(v . tanh(A h_i + B h_j)) h_j] W_o

Bahdanau 2014, arXiv:1409.0473 section 3 and appendix A.1.2, here of tokens to themselves. Causal: annotations h_j of
tokens so far; otherwise the same recurrence also runs backwards and is added to h. v = 0 at first: an average. The
recurrence goes token by token; scores are made for `chunk` queries at a time, and again in the backward pass. Time
O(n^2 d), memory O(n d) and one chunk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sevenfold.blocks.mixing import Mixer, Project, allowed, starts
from sevenfold.core.initial import Constant, Rule
from sevenfold.core.types import Hidden, Mask


class Annotations(NamedTuple):
    """What a step needs: the last state [b d], annotations [b t d], B h [b t da], valid and segments [b t]."""

    last: Tensor
    h: Tensor
    told: Tensor
    valid: Tensor
    segments: Tensor
    used: int


class GruAdditive(Mixer):
    class Config(Mixer.Config):
        inner: int | None = Field(None, ge=1)
        """Channels of the score; by default the width."""
        chunk: int = Field(128, ge=1)
        """Queries whose scores are made at once."""

    variants = ({"inner": 5, "chunk": 4},)

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.inner = config.inner or width
        self.input = self.project(width, 3 * width)
        self.recurrent = self.project(width, 3 * width)
        self.ask = self.project(width, self.inner)
        self.tell = self.project(width, self.inner)
        self.score = nn.Parameter(torch.empty(1, self.inner))
        self.out = self.project(2 * width, width)

    def rules(self) -> dict[str, Rule]:
        return {"score": Constant(0.0)}

    def _run(self, x: Tensor, h: Tensor, begins: Tensor | None, valid: Tensor | None) -> Tensor:
        """The states after each token, x [b n 3d] projected; forgotten where a document begins, kept over padding."""
        found = []
        for t in range(x.shape[1]):
            before = h if begins is None else h.masked_fill(begins[:, t, None], 0.0)
            r, z, new = x[:, t].chunk(3, -1)
            u_r, u_z, u_n = self.recurrent(before).chunk(3, -1)
            z = torch.sigmoid(z + u_z)
            new = torch.tanh(new + torch.sigmoid(r + u_r) * u_n)
            h = new + z * (before - new)
            if valid is not None:
                h = torch.where(valid[:, t, None], h, before)
            found.append(h)
        return torch.stack(found, 1)

    def _states(self, hidden: Hidden, mask: Mask) -> Tensor:
        x, begins, valid = self.input(hidden.x), starts(hidden), hidden.valid
        h = self._run(x, torch.zeros_like(x[:, 0, : self.width]), begins, valid)
        if not mask.causal:
            ends = None if begins is None else torch.cat([begins[:, 1:], begins[:, :1]], 1).flip(1)
            back = self._run(x.flip(1), torch.zeros_like(h[:, 0]), ends, None if valid is None else valid.flip(1))
            h = h + back.flip(1)
        return h

    def _weights(self, asked: Tensor, told: Tensor, seen: Tensor | None) -> Tensor:
        """[b k n]"""
        score = F.linear(torch.tanh(asked[:, :, None] + told[:, None]), self.score.to(told.dtype)).squeeze(-1)
        return (score if seen is None else score.masked_fill(~seen, float("-inf"))).softmax(-1)

    def _read(self, asked: Tensor, told: Tensor, h: Tensor, seen: Tensor | None) -> Tensor:
        return self._weights(asked, told, seen).to(h.dtype) @ h

    def _context(self, h: Tensor, asked: Tensor, told: Tensor, seen: Tensor | None) -> Tensor:
        found = []
        for start in range(0, asked.shape[1], self.config.chunk):
            now = slice(start, start + self.config.chunk)
            part = None if seen is None else seen[:, now]
            found.append(checkpoint(self._read, asked[:, now], told, h, part, use_reentrant=False))
        return torch.cat(found, 1)

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        h, seen = self._states(hidden, mask), allowed(hidden, mask)
        context = self._context(h, self.ask(h), self.tell(h), None if seen is None else seen[:, 0])
        return self.out(torch.cat([h, context], -1))

    def start(self, rows: int, length: int, like: Tensor) -> Annotations:
        none = torch.zeros(rows, 0, dtype=torch.long, device=like.device)
        empty = like.new_zeros(rows, 0, self.width)
        told = like.new_zeros(rows, 0, self.inner)
        return Annotations(like.new_zeros(rows, self.width), empty, told, none > 0, none, 0)

    def step(self, hidden: Hidden, state: Annotations, mask: Mask) -> tuple[Tensor, Annotations]:
        x = self.input(hidden.x)
        zero = torch.zeros(x.shape[:2], dtype=torch.long, device=x.device)
        ids = zero if hidden.segments is None else hidden.segments
        valid = zero == 0 if hidden.valid is None else hidden.valid
        segments = torch.cat([state.segments, ids], 1)
        before = F.pad(segments, (1, 0), value=-1)[:, state.used : state.used + x.shape[1]]
        h = self._run(x, state.last.to(x.dtype), ids != before, valid)
        whole, told = torch.cat([state.h.to(h.dtype), h], 1), torch.cat([state.told.to(h.dtype), self.tell(h)], 1)
        every, place = torch.cat([state.valid, valid], 1), torch.arange(whole.shape[1], device=x.device)
        distance = place[state.used :, None] - place[None, :]
        seen = (distance >= 0) & every[:, None] & (ids[:, :, None] == segments[:, None]) | (distance == 0)
        y = self.out(torch.cat([h, self._context(whole, self.ask(h), told, seen)], -1))
        return y, Annotations(h[:, -1], whole, told, every, segments, whole.shape[1])

    def weights(self, hidden: Hidden, mask: Mask = Mask(), rows: Tensor | None = None) -> Tensor:  # noqa: B008
        h, seen = self._states(hidden, mask), allowed(hidden, mask)
        rows = torch.arange(h.shape[1], device=h.device) if rows is None else rows
        return self._weights(self.ask(h[:, rows]), self.tell(h), None if seen is None else seen[:, 0, rows])[:, None]

    def flops(self, tokens: int, attended: int) -> int:
        mixed = 4 * tokens * self.width * self.inner + 2 * tokens * attended * (self.width + self.inner)
        return 16 * tokens * self.width**2 + mixed

    def again(self, tokens: int, attended: int) -> int:
        """The scores."""
        return 2 * tokens * attended * self.inner

    def scratch(self, tokens: int, attended: int) -> int:
        """The hidden layer of the scores of a chunk of queries, its input and its gradient."""
        return 3 * min(tokens, self.config.chunk) * attended * self.inner

    def kept(self, tokens: int, attended: int) -> int:
        return tokens * (11 * self.width + 2 * self.inner)

    def cached(self, tokens: int) -> int:
        return self.width + tokens * (self.width + self.inner)
