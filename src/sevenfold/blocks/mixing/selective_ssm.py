"""A selective state space: each channel keeps a small state, and the token decides what it takes in and what it forgets.

    h_t = exp(D_t A) h_{t-1} + D_t B_t u_t,   y_t = C_t^T h_t + D u_t,   out = (y * silu(z)) W_o
    [x z] = x W_in,  u = silu(short convolution of x),  [r B C] = u W_x,  D_t = softplus(r W_dt + b_dt),  A = -exp(A_log)

Gu 2023 (Mamba), arXiv:2312.00752 algorithm 2. Mamba, Falcon Mamba, Jamba, Caduceus. Cost O(n d N) for states of N numbers a
channel; constant memory when stepping. The recurrence is a parallel scan in float32 over pieces of the sequence, whose
states the backward pass computes again. Without a causal mask, a second pass runs backwards and is added.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.mixing import Project
from sevenfold.blocks.mixing._scan import (
    Past,
    Recurrent,
    begun,
    exact,
    first_steps,
    flipped,
    lean,
    no_past,
    real,
    short,
)
from sevenfold.blocks.mixing._selective import selective_scan
from sevenfold.blocks.projection import Projection
from sevenfold.core.initial import Constant, Rule, Uniform, Values
from sevenfold.core.types import wide


class State(NamedTuple):
    """The states of the channels h [b e N] and the last columns of the short convolution."""

    h: Tensor
    past: Past


class SelectiveSSM(Recurrent):
    class Config(Recurrent.Config):
        state: int = Field(16, ge=1, le=1024)
        """N: numbers that a channel keeps."""
        expand: int = Field(2, ge=1, le=64)
        """Channels inside, as a multiple of the width."""
        kernel: int = Field(4, ge=2, le=64)
        """Taps of the short convolution."""
        conv_bias: bool = True
        """Whether the short convolution has a bias."""
        select: Projection.Config | None = None
        """What r, B and C are made by; by default as block.projection says."""
        rank: int | None = Field(None, ge=1)
        """Numbers of which the step sizes D_t are made; by default width / 16, rounded up."""
        chunk: int = Field(64, ge=1, le=1 << 16)
        """Tokens of one piece, whose states are in memory at a time. Changes speed and memory, not the result."""

    variants = (
        {"state": 3, "expand": 1, "kernel": 2, "rank": 5, "chunk": 5},
        {"conv_bias": False, "select": {"kind": "linear", "bias": True}},
    )

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.inner, self.rank = config.expand * width, config.rank or math.ceil(width / 16)
        self.up = self.project(width, 2 * self.inner)
        self.taps = nn.Parameter(torch.empty(self.inner, config.kernel))
        self.taps_bias = nn.Parameter(torch.empty(self.inner)) if config.conv_bias else None
        self.select = (config.select.build if config.select else self.project)(self.inner, self.rank + 2 * config.state)
        self.dt_weight = nn.Parameter(torch.empty(self.inner, self.rank))
        self.dt_bias = nn.Parameter(torch.empty(self.inner))
        self.A_log = nn.Parameter(torch.empty(self.inner, config.state))
        self.D = nn.Parameter(torch.empty(self.inner))
        self.out = self.project(self.inner, width)

    def rules(self) -> dict[str, Rule]:
        reach, spread = self.config.kernel**-0.5, self.rank**-0.5
        bias: dict[str, Rule] = {"taps_bias": Uniform(-reach, reach)} if self.config.conv_bias else {}
        return bias | {
            "taps": Uniform(-reach, reach),
            "dt_weight": Uniform(-spread, spread),
            "dt_bias": Values(first_steps),
            "A_log": Values(lambda shape: torch.arange(1, shape[1] + 1).float().log().expand(shape)),
            "D": Constant(1.0),
        }

    def _convolved(self, x: Tensor, valid: Tensor | None, ids: Tensor | None) -> Tensor:
        return self._activated(short(real(x, valid), self.taps, ids, None)[0])

    def _activated(self, x: Tensor) -> Tensor:
        return F.silu(x if self.taps_bias is None else x + self.taps_bias)

    def walk(self, u: Tensor, valid: Tensor | None, ids: Tensor | None, state: State | None) -> tuple[Tensor, Any]:
        x = u[..., : self.inner]
        if state is None:
            mixed, past = lean(self._convolved, x, valid, ids), None
            h, last = wide(x.new_zeros(len(x), self.inner, self.config.state)), None
        else:
            mixed, past = short(real(x, valid), self.taps, ids, state.past)
            mixed = self._activated(mixed)
            h, last = state.h, state.past.ids[:, -1]
        r, b, c = self.select(mixed).split([self.rank, self.config.state, self.config.state], -1)
        raw = F.linear(r, self.dt_weight.to(r.dtype), self.dt_bias.to(r.dtype))
        with exact(u):
            y, h = selective_scan(
                wide(mixed),
                wide(raw),
                wide(self.A_log),
                wide(b),
                wide(c),
                h,
                valid,
                begun(ids, last),
                self.config.chunk,
            )
        return y + wide(mixed) * self.D, None if past is None else State(h, past)

    def gate(self, y: Tensor, u: Tensor) -> Tensor:
        return lean(self._gated, y, u)

    def _gated(self, y: Tensor, u: Tensor) -> Tensor:
        return (y * F.silu(wide(u[..., self.inner :]))).to(u.dtype)

    def passes(self, u: Tensor, valid: Tensor | None, ids: Tensor | None, causal: bool) -> Tensor:
        y, _ = self.walk(u, valid, ids, None)
        if not causal:
            y = y + self.walk(u.flip(1), flipped(valid), flipped(ids), None)[0].flip(1)
        return self.gate(y, u)

    def start(self, rows: int, length: int, like: Tensor) -> State:
        h = wide(like.new_zeros(rows, self.inner, self.config.state))
        return State(h, no_past(rows, self.config.kernel, self.inner, like))

    def flops(self, tokens: int, attended: int) -> int:
        select, state = self.rank + 2 * self.config.state, self.config.state
        return 2 * tokens * self.inner * (3 * self.width + select + self.rank + state)

    def again(self, tokens: int, attended: int) -> int:
        """The product with the states."""
        return 2 * tokens * self.inner * self.config.state

    def scratch(self, tokens: int, attended: int) -> int:
        """Of one piece: states, what is kept of them, what is new, and gradients of each; some of the piece before it."""
        now = min(tokens, self.config.chunk)
        before = min(tokens - now, self.config.chunk)
        return self.inner * ((10 * now + 3 * before) * self.config.state + 7 * tokens)

    def kept(self, tokens: int, attended: int) -> int:
        state, pieces = self.config.state, -(-tokens // self.config.chunk)
        return tokens * (6 * self.inner + self.rank + 2 * state) + pieces * self.inner * state

    def cached(self, tokens: int) -> int:
        return self.inner * (self.config.state + self.config.kernel - 1)
