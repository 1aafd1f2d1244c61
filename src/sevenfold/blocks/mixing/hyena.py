"""Hyena: convolutions as long as the sequence, whose filters are made by a small network, between gates.

    [x_0 x_1 … v] = short convolution of x W_in;   v <- h^i conv w + b^i w, w = x_i v, for i = N-1 … 1;   y = (x_0 v) W_o
    h_t = exp(-|a| t / (L-1)) FFN(t),   FFN of sines over [t / (L-1), cos(f w_t), -sin(f w_t)],  w_t = 2 pi t / L

Poli 2023, arXiv:2302.10866 definition 3.1 and section 3.3; HyenaDNA, arXiv:2306.15794. Cost O(n log n) by FFT in float32;
O(n log^2 n) where documents are packed, so that none leaks into another. `step` is exact: a cached convolution, O(t) for
token t. A shorter sequence takes the beginning of the filter, a longer one continues it. Without a causal mask, a second
pass runs backwards and is added.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.mixing import Project
from sevenfold.blocks.mixing._long import convolved, convolved_in_runs, last_of
from sevenfold.blocks.mixing._scan import Past, Recurrent, exact, flipped, lean, no_past, real, runs, short
from sevenfold.core.initial import Constant, Normal, Rule, Uniform
from sevenfold.core.types import wide


class State(NamedTuple):
    """What has gone into each long convolution [b order-1 d length], the segments so far [b length], the filters
    [order-1 d length], the past of the short convolution, and how many tokens there are."""

    history: Tensor
    run: Tensor
    filters: Tensor
    past: Past
    used: int


class Hyena(Recurrent):
    class Config(Recurrent.Config):
        order: int = Field(2, ge=2, le=8)
        """N: gates x_0 … and one value; N - 1 long convolutions."""
        length: int = Field(1024, ge=2, le=1 << 24)
        """L: the sequence length that filters are scaled to. Of shorter sequences they are cut, for longer ones they go
        on."""
        kernel: int = Field(3, ge=2, le=64)
        """Taps of the short convolution."""
        bands: int = Field(1, ge=1, le=1024)
        """Frequencies that the filter network is told time by (HyenaDNA: 2)."""
        filter_width: int = Field(64, ge=1, le=4096)
        """Width of the filter network."""
        filter_depth: int = Field(2, ge=0, le=16)
        """Its inner layers."""
        frequency: float = Field(1.0, gt=0)
        """First frequency of its sines, which is learned (HyenaDNA: 10)."""

    variants = ({"order": 3, "length": 8, "kernel": 2, "bands": 2, "filter_width": 12, "filter_depth": 1},)

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.filters, inner = config.order - 1, config.filter_width
        self.up = self.project(width, (config.order + 1) * width)
        self.taps = nn.Parameter(torch.empty((config.order + 1) * width, config.kernel))
        self.taps_bias = nn.Parameter(torch.empty((config.order + 1) * width))
        sizes = [2 * config.bands + 1, *[inner] * (config.filter_depth + 1)]
        self.layers: Any = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.last = nn.Linear(inner, self.filters * width, bias=False)
        self.frequency = nn.Parameter(torch.empty(inner))
        self.skip = nn.Parameter(torch.empty(self.filters, width))
        self.out = self.project(width, width)

    def rules(self) -> dict[str, Rule]:
        reach = self.config.kernel**-0.5
        found: dict[str, Rule] = {"taps": Uniform(-reach, reach), "taps_bias": Uniform(-reach, reach)}
        for index, layer in enumerate(self.layers):
            spread = layer.weight.shape[1] ** -0.5
            found |= {f"layers.{index}.{part}": Uniform(-spread, spread) for part in ("weight", "bias")}
        spread = self.config.filter_width**-0.5
        return found | {
            "last.weight": Uniform(-spread, spread),
            "frequency": Constant(self.config.frequency),
            "skip": Normal(1.0),
        }

    def filter(self, n: int) -> Tensor:
        """The first n places of every long filter, [order-1 d n], at least in float32."""
        weight = wide(self.last.weight)
        with exact(weight):
            t = torch.arange(n, device=weight.device, dtype=weight.dtype)
            bands = self.config.bands
            f = torch.linspace(1e-4, max(bands - 1, 1e-4), bands, device=weight.device, dtype=weight.dtype)
            angle = (2 * math.pi / self.config.length) * t[:, None] * f
            share = t / (self.config.length - 1)
            z = torch.cat([share[:, None], angle.cos(), -angle.sin()], -1)
            for layer in self.layers:
                z = torch.sin(self.frequency * F.linear(z, wide(layer.weight), wide(layer.bias)))
            slow, fast = math.log(1e-2) / 1.5, math.log(1e-2) / 0.3
            rates = torch.linspace(slow, fast, len(weight), device=weight.device, dtype=weight.dtype)
            return ((z @ weight.T).T * torch.exp(rates[:, None] * share)).unflatten(0, (self.filters, -1))

    def _parts(self, mixed: Tensor, valid: Tensor | None) -> tuple[Tensor, ...]:
        """x_0, x_1 … v [b d n] of what the short convolution gave; v is 0 at padding."""
        *gates, v = wide(mixed + self.taps_bias).mT.contiguous().unflatten(1, (-1, self.width)).unbind(1)
        return *gates, v if valid is None else v * valid[:, None]

    def passes(self, u: Tensor, valid: Tensor | None, ids: Tensor | None, causal: bool) -> Tensor:
        return lean(self._both, u, valid, ids, causal)

    def _both(self, u: Tensor, valid: Tensor | None, ids: Tensor | None, causal: bool) -> Tensor:
        filters = self.filter(u.shape[1])
        y = self._pass(u, valid, ids, filters)
        if not causal:
            y = y + self._pass(u.flip(1), flipped(valid), flipped(ids), filters).flip(1)
        return y.to(u.dtype)

    def _pass(self, u: Tensor, valid: Tensor | None, ids: Tensor | None, filters: Tensor) -> Tensor:
        """u [b n (order+1) d] → [b n d], from nothing."""
        *gates, v = self._parts(short(real(u, valid), self.taps, ids, None)[0], valid)
        run = runs(ids, None)
        with exact(u):
            for x, h, skip in zip(gates[:0:-1], filters, self.skip):
                w = x * v
                v = (convolved(w, h) if run is None else convolved_in_runs(w, h, run)) + skip[:, None] * w
        return (gates[0] * v).mT

    def start(self, rows: int, length: int, like: Tensor) -> State:
        history = wide(like.new_zeros(rows, self.filters, self.width, length))
        run = torch.zeros(rows, length, dtype=torch.long, device=like.device)
        past = no_past(rows, self.config.kernel, (self.config.order + 1) * self.width, like)
        return State(history, run, self.filter(length).to(history.dtype), past, 0)

    def walk(self, u: Tensor, valid: Tensor | None, ids: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        """The next tokens, after all that the state has."""
        old, new = state.used, state.used + u.shape[1]
        if new > state.run.shape[1]:
            raise ValueError(f"the state holds {state.run.shape[1]} tokens, and {new} were given")
        begun: Any = runs(ids, state.past.ids[:, -1])
        mixed, past = short(real(u, valid), self.taps, ids, state.past)
        *gates, v = self._parts(mixed, valid)
        state.run[:, old:new] = begun + (state.run[:, old - 1 : old] if old else 0)
        run = state.run[:, :new]
        with exact(u):
            for place, (x, h, skip) in enumerate(zip(gates[:0:-1], state.filters, self.skip)):
                w = x * v
                state.history[:, place, :, old:new] = w
                v = last_of(state.history[:, place, :, :new], h, run, new - old) + skip[:, None] * w
        return (gates[0] * v).mT, state._replace(past=past, used=new)

    def rows(self, state: Any, index: Tensor) -> Any:
        history, run, past = super().rows((state.history, state.run, state.past), index)
        return State(history, run, state.filters, past, state.used)  # all rows have the same filters

    def gate(self, y: Tensor, u: Tensor) -> Tensor:
        return y.to(u.dtype)

    def flops(self, tokens: int, attended: int) -> int:
        """Without the FFTs, about 15 n log2 n a channel and convolution, which PyTorch's counter leaves out."""
        return 2 * tokens * self.width**2 * (self.config.order + 2)

    def flops_once(self, tokens: int) -> int:
        return (
            2 * tokens * sum(weight.numel() for weight in [*(layer.weight for layer in self.layers), self.last.weight])
        )

    def again(self, tokens: int, attended: int) -> int:
        return 0

    def scratch(self, tokens: int, attended: int) -> int:
        """Spectra, twice as long as the sequence, of the recursion's factors and their gradients."""
        return (7 * self.config.order + 8) * tokens * self.width

    def kept(self, tokens: int, attended: int) -> int:
        return tokens * self.width * (self.config.order + 2)

    def cached(self, tokens: int) -> int:
        columns = (self.config.kernel - 1) * (self.config.order + 1)
        return self.width * (2 * self.filters * tokens + columns)
