"""A selective state space whose states decay by one number a head, so that it is linear attention with decays.

    h_t = exp(D_t A) h_{t-1} + B_t (D_t u_t)^T,   y_t = h_t^T C_t + D u_t,   out = (rms(y * silu(z)) * w) W_o
    [z uBC r] = x W_in,  [u B C] = silu(short convolution of uBC),  D_t = softplus(r + b_dt),  A = -exp(A_log)

Dao 2024 (Mamba-2), arXiv:2405.21060 sections 5-7: A, r, D_t and D are one number a head, B and C belong to groups of heads,
rms is over the channels of a group. Mamba-2, Codestral Mamba, Bamba, Zamba2, Falcon-H1. In chunks, O(n (C (N + P) + N P)) a
head for chunks of C, states of N and heads of width P; constant memory when stepping. Steps, decays, sums and states are in
float32. Without a causal mask, a second pass runs backwards and is added.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.mixing import Project, default_heads
from sevenfold.blocks.mixing._scan import (
    GROUP,
    Past,
    Recurrent,
    borders,
    exact,
    first_steps,
    linear,
    linear_flops,
    no_past,
    real,
    runs,
    short,
)
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Constant, Rule, Uniform, Values
from sevenfold.core.types import wide


class State(NamedTuple):
    """The states of the heads h [b heads N P] and the last columns of the short convolution."""

    h: Tensor
    past: Past


class StateSpaceDuality(Recurrent):
    class Config(Recurrent.Config):
        state: int = Field(128, ge=1, le=1024)
        """N: numbers that a channel keeps."""
        expand: int = Field(2, ge=1, le=64)
        """Channels inside, as a multiple of the width."""
        heads: int | None = Field(None, ge=1, le=4096)
        """How many heads share the channels; by default heads of width 64 (32 where fewer than 256 channels are inside)."""
        groups: int = Field(1, ge=1, le=4096)
        """Groups of heads, each with B and C of its own and a norm of its own; the heads must be a multiple."""
        kernel: int = Field(4, ge=2, le=64)
        """Taps of the short convolution."""
        chunk: int = Field(64, ge=1, le=1024)
        """Tokens in one chunk (the paper's code: 256). Changes the speed, not the result."""
        eps: float = Field(1e-5, gt=0)
        """Added to the mean square of a group before its root is taken."""

    variants = ({"state": 3, "expand": 1, "heads": 4, "groups": 2, "kernel": 2, "chunk": 5},)

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.inner = config.expand * width
        self.inner_heads: int = config.heads or default_heads(self.inner)
        if self.inner % self.inner_heads:
            raise ConfigError(f"state_space_duality: {self.inner_heads} heads do not divide {self.inner} channels")
        if self.inner_heads % config.groups:
            raise ConfigError(f"state_space_duality: {config.groups} groups do not divide {self.inner_heads} heads")
        self.head_width = self.inner // self.inner_heads
        self.mixed = self.inner + 2 * config.groups * config.state
        self.up = self.project(width, self.inner + self.mixed + self.inner_heads)
        self.taps = nn.Parameter(torch.empty(self.mixed, config.kernel))
        self.taps_bias = nn.Parameter(torch.empty(self.mixed))
        self.dt_bias = nn.Parameter(torch.empty(self.inner_heads))
        self.A_log = nn.Parameter(torch.empty(self.inner_heads))
        self.D = nn.Parameter(torch.empty(self.inner_heads))
        self.scale = nn.Parameter(torch.empty(self.inner))
        self.out = self.project(self.inner, width)

    def rules(self) -> dict[str, Rule]:
        reach = self.config.kernel**-0.5
        return {
            "taps": Uniform(-reach, reach),
            "taps_bias": Uniform(-reach, reach),
            "dt_bias": Values(first_steps),
            "A_log": Values(lambda shape: torch.empty(shape).uniform_(1, 16).log()),
            "D": Constant(1.0),
            "scale": Constant(1.0),
        }

    def walk(self, u: Tensor, valid: Tensor | None, ids: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        _, mixed, r = u.split([self.inner, self.mixed, self.inner_heads], -1)
        mixed, past = short(real(mixed, valid), self.taps, ids, None if state is None else state.past)
        groups, numbers = self.config.groups, self.config.groups * self.config.state
        x, b, c = wide(F.silu(mixed + self.taps_bias)).split([self.inner, numbers, numbers], -1)
        x = x.unflatten(-1, (self.inner_heads, -1)).transpose(1, 2)
        b, c = (
            y.unflatten(-1, (groups, -1)).repeat_interleave(self.inner_heads // groups, 2).transpose(1, 2)
            for y in (b, c)
        )
        dt = real(F.softplus(wide(r) + self.dt_bias), valid).transpose(1, 2)
        decay = dt * -wide(self.A_log).exp()[:, None]
        h = x.new_zeros(len(u), self.inner_heads, self.config.state, self.head_width) if state is None else state.h
        run = runs(ids, None if state is None else state.past.ids[:, -1])
        with exact(u):
            y, h = linear(c, b, x * dt.unsqueeze(-1), decay, run, h, self.config.chunk)
        y = y + x * self.D[:, None, None]
        return y.transpose(1, 2).flatten(2), None if past is None else State(h, past)

    def gate(self, y: Tensor, u: Tensor) -> Tensor:
        y = (y * F.silu(wide(u[..., : self.inner]))).unflatten(-1, (self.config.groups, -1))
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.config.eps)
        return (y.flatten(-2) * self.scale).to(u.dtype)

    def start(self, rows: int, length: int, like: Tensor) -> State:
        h = wide(like.new_zeros(rows, self.inner_heads, self.config.state, self.head_width))
        return State(h, no_past(rows, self.config.kernel, self.mixed, like))

    def flops(self, tokens: int, attended: int) -> int:
        projections = 2 * tokens * self.width * (2 * self.inner + self.mixed + self.inner_heads)
        return projections + linear_flops(
            tokens, self.inner_heads, self.config.state, self.head_width, self.config.chunk
        )

    def scratch(self, tokens: int, attended: int) -> int:
        group, size = min(tokens, GROUP), min(self.config.chunk, tokens)
        return group * (15 * self.inner + self.inner_heads * (12 * self.config.state + 2 * size))

    def kept(self, tokens: int, attended: int) -> int:
        return tokens * (2 * self.inner + self.mixed + self.inner_heads) + borders(tokens) * self.cached(tokens)

    def cached(self, tokens: int) -> int:
        return self.inner * self.config.state + (self.config.kernel - 1) * self.mixed
