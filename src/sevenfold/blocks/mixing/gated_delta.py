"""The gated delta rule: a matrix of memory that forgets, and corrects what it says about a key before it writes.

    S_t = e^g_t S_{t-1} + k_t (b_t (v_t - e^g_t S_{t-1}^T k_t))^T,   o_t = S_t^T q_t / sqrt(d_k)
    g = -exp(A_log) softplus(a + dt_bias),  b = sigmoid(.),  q, k, v = silu(short convolution),  q and k of length 1
    y = (rms(o) * w * silu(z)) W_o                                         q k v z b a = x W_in

Yang 2024, arXiv:2412.06464 eq. 10; in chunks, by the triangular system of DeltaNet, Yang 2024, arXiv:2406.06484 section 3.
Qwen3-Next, Kimi Linear. Cost O(n (C d + d_k d_v)) for chunks of C; constant memory when stepping. Decays, sums, the
system and the state are in float32. Without a causal mask, a second pass runs backwards and is added.
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
    chunks,
    decays,
    exact,
    no_past,
    real,
    runs,
    short,
)
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Constant, Rule, Uniform, Values
from sevenfold.core.types import wide


class State(NamedTuple):
    """The memory s [b h d_k d_v] and the last columns of the short convolution."""

    s: Tensor
    past: Past


class GatedDelta(Recurrent):
    class Config(Recurrent.Config):
        heads: int | None = Field(None, ge=1, le=4096)
        """How many heads of values, each with a memory of its own. By default as many as heads of width 64 (32 in trunks
        narrower than 256) would be."""
        key_heads: int | None = Field(None, ge=1)
        """Heads of queries and keys, shared by groups of value heads; by default as many as heads."""
        head_width: int | None = Field(None, ge=1, le=4096)
        """Width of a query and a key; by default width / heads."""
        value_width: int | None = Field(None, ge=1, le=4096)
        """Width of a value; by default head_width."""
        kernel: int = Field(4, ge=2, le=64)
        """Taps of the short convolution."""
        chunk: int = Field(64, ge=1, le=1024)
        """Tokens in one chunk. Changes the speed, not the result."""
        eps: float = Field(1e-6, gt=0)
        """Added to the mean square of the output before its root is taken."""

    variants = ({"heads": 4, "key_heads": 2, "head_width": 6, "value_width": 10, "chunk": 5},)

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.inner_heads: int = config.heads or default_heads(width)
        self.key_heads: int = config.key_heads or self.inner_heads
        if config.head_width is None and width % self.inner_heads:
            raise ConfigError(f"gated_delta: {self.inner_heads} heads do not divide the width {width}")
        if self.inner_heads % self.key_heads:
            raise ConfigError(f"gated_delta: {self.key_heads} key_heads do not divide {self.inner_heads} heads")
        self.d_k: int = config.head_width or width // self.inner_heads
        self.d_v: int = config.value_width or self.d_k
        self.keys, self.inner = self.key_heads * self.d_k, self.inner_heads * self.d_v
        self.mixed = 2 * self.keys + self.inner
        self.up = self.project(width, self.mixed + self.inner + 2 * self.inner_heads)
        self.taps = nn.Parameter(torch.empty(self.mixed, config.kernel))
        self.A_log = nn.Parameter(torch.empty(self.inner_heads))
        self.dt_bias = nn.Parameter(torch.empty(self.inner_heads))
        self.scale = nn.Parameter(torch.empty(self.d_v))
        self.out = self.project(self.inner, width)

    def rules(self) -> dict[str, Rule]:
        reach = self.config.kernel**-0.5
        log_uniform = Values(lambda shape: torch.empty(shape).uniform_(0.01, 16).log())
        return {
            "taps": Uniform(-reach, reach),
            "A_log": log_uniform,
            "dt_bias": Constant(1.0),
            "scale": Constant(1.0),
        }

    def walk(self, u: Tensor, valid: Tensor | None, ids: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        mixed, _, b, a = u.split([self.mixed, self.inner, self.inner_heads, self.inner_heads], -1)
        mixed, past = short(real(mixed, valid), self.taps, ids, None if state is None else state.past)
        q, k, v = wide(F.silu(mixed)).split([self.keys, self.keys, self.inner], -1)
        q, k = (self._shared(unit(x.unflatten(-1, (self.key_heads, self.d_k)))) for x in (q, k))
        v = v.unflatten(-1, (self.inner_heads, self.d_v)).transpose(1, 2)
        beta = real(torch.sigmoid(wide(b)), valid).transpose(1, 2)
        g = real(-wide(self.A_log).exp() * F.softplus(wide(a) + self.dt_bias), valid).transpose(1, 2)
        s = v.new_zeros(len(u), self.inner_heads, self.d_k, self.d_v) if state is None else state.s
        run = runs(ids, None if state is None else state.past.ids[:, -1])
        with exact(u):
            o, s = delta_rule(q * self.d_k**-0.5, k, v, g, beta, run, s, self.config.chunk)
        return o.transpose(1, 2), None if past is None else State(s, past)

    def _shared(self, x: Tensor) -> Tensor:
        """[b n key_heads d] → [b heads n d]."""
        return x.repeat_interleave(self.inner_heads // self.key_heads, 2).transpose(1, 2)

    def gate(self, y: Tensor, u: Tensor) -> Tensor:
        z = wide(u[..., self.mixed : self.mixed + self.inner])
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.config.eps) * self.scale
        return (y.flatten(2) * F.silu(z)).to(u.dtype)

    def start(self, rows: int, length: int, like: Tensor) -> State:
        s = wide(like.new_zeros(rows, self.inner_heads, self.d_k, self.d_v))
        return State(s, no_past(rows, self.config.kernel, self.mixed, like))

    def flops(self, tokens: int, attended: int) -> int:
        """Without the triangular solve, C (d_k + d_v) more a token and head, which PyTorch's counter leaves out."""
        size = min(self.config.chunk, tokens)
        chunk = 2 * size * (size * (2 * self.d_k + self.d_v) + 3 * self.d_k * self.d_v)
        return 2 * tokens * self.width * self._kept_width() + -(-tokens // size) * self.inner_heads * chunk

    def _kept_width(self) -> int:
        """Numbers of a token that go into and come out of the passes."""
        return self.mixed + 2 * self.inner + 2 * self.inner_heads

    def again(self, tokens: int, attended: int) -> int:
        """All but the projections, and the gradient of the triangular system; the first state needs none."""
        size = min(self.config.chunk, tokens)
        solved = -(-tokens // size) * 2 * size**2 * (self.d_k + self.d_v) - 6 * size * self.d_k * self.d_v
        return super().again(tokens, attended) + self.inner_heads * solved

    def scratch(self, tokens: int, attended: int) -> int:
        group, size = min(tokens, GROUP), min(self.config.chunk, tokens)
        return group * (30 * self.inner + 6 * self.inner_heads * size)

    def kept(self, tokens: int, attended: int) -> int:
        return tokens * self._kept_width() + borders(tokens) * self.cached(tokens)

    def cached(self, tokens: int) -> int:
        return self.inner_heads * self.d_k * self.d_v + (self.config.kernel - 1) * self.mixed


def unit(x: Tensor) -> Tensor:
    """x / |x|, and nearly 0 stays so."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, run: Tensor | None, state: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """S_t of the header from q, k [b h n d_k], v [b h n d_v], g, beta [b h n] and S_0 → (o [b h n d_v], the last S).

    In a chunk, with D what decay leaves of token j in token i: (I + A) N = beta (V - D_0 K S), A the part of beta K K^T * D
    below the diagonal; O = D_0 Q S + (Q K^T * D) N; the state gains K^T N, decayed to the end of the chunk.
    """
    n, size = q.shape[2], min(chunk, q.shape[2])
    left = decays(g, run, size)
    q, k, v, beta = (chunks(x, size) for x in (q, k, v, beta.unsqueeze(-1)))
    system = ((beta * k) @ k.mT) * left.between
    both = torch.cat([beta * v, beta * left.before * k], -1)
    solved = torch.linalg.solve_triangular(system, both, upper=False, unitriangular=True)
    written, corrected = solved.split([v.shape[-1], k.shape[-1]], -1)
    last = (k * left.after).mT
    befores, news = [], []
    for place in range(q.shape[2]):
        new = written[:, :, place] - corrected[:, :, place] @ state
        befores.append(state)
        news.append(new)
        state = state * left.across[:, :, place] + last[:, :, place] @ new
    within = ((q @ k.mT) * left.between) @ torch.stack(news, 2)
    y = (q * left.before) @ torch.stack(befores, 2) + within
    return y.flatten(2, 3)[:, :, :n], state
