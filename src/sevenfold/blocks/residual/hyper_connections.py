"""Hyper-connections: several streams side by side, mixed anew around each branch.

    h_0 = A_m^T H,     H <- A_r^T H + B^T f(h_0)                       H [s d], A_m [s 1], A_r [s s], B [1 s]
    dynamic:           B + s_b tanh(N W_b),   [A_m A_r] + s_a tanh(N W_a),   N = layer_norm(H), no gains

H begins as s copies of the embedding. At the start A_m takes stream k mod s in branch k, A_r = 1, B = 1 and W = 0: all
streams are equal, and each is the plain residual's. The representation is the mean of the streams (the paper's is their
sum, the same after the final norm). Zhu 2024, arXiv:2409.19606 eq. 1-14.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.residual import Branch, Residual
from sevenfold.core.initial import Constant, Rule, Values
from sevenfold.core.types import wide


class HyperConnections(Residual):
    class Config(Residual.Config):
        streams: int = Field(4, ge=1, le=64)
        """How many streams."""
        dynamic: bool = True
        """Whether the weights also depend on the token."""

    variants = ({"dynamic": False}, {"streams": 2})

    def __init__(
        self, config: Any, width: int, index: int = 0, depth: int = 1, place: int = 0, condition: int | None = None
    ):
        super().__init__(config, width, index, depth, place, condition)
        self.streams = s = config.streams
        self.read = nn.Parameter(torch.empty(s, s + 1))
        self.write = nn.Parameter(torch.empty(s))
        if config.dynamic:
            self.read_weight, self.read_scale = nn.Parameter(torch.empty(s + 1, width)), nn.Parameter(torch.empty(()))
            self.write_weight, self.write_scale = nn.Parameter(torch.empty(1, width)), nn.Parameter(torch.empty(()))

    def rules(self) -> dict[str, Rule]:
        rules: dict[str, Rule] = {"read": Values(self._begin), "write": Constant(1.0)}
        if self.config.dynamic:
            rules |= {"read_weight": Constant(decays=True), "write_weight": Constant(decays=True)}
            rules |= {"read_scale": Constant(0.01), "write_scale": Constant(0.01)}
        return rules

    def _begin(self, shape: torch.Size) -> Tensor:
        first = F.one_hot(torch.tensor((2 * self.index + self.place) % self.streams), self.streams).float()
        return torch.cat([first[:, None], torch.eye(self.streams)], 1)

    def enter(self, x: Tensor) -> Tensor:
        return x.unsqueeze(-2).repeat_interleave(self.streams, -2)

    def leave(self, x: Tensor) -> Tensor:
        return x.mean(-2)

    def forward(self, x: Tensor, branch: Branch, condition: Tensor | None = None) -> Tensor:
        read: Tensor = self.read
        write: Tensor = self.write
        with torch.autocast(x.device.type, enabled=False):
            h = wide(x)
            if self.config.dynamic:
                normed = F.layer_norm(h, (self.width,))
                read = read + self.read_scale * F.linear(normed, self.read_weight).tanh()
                write = write + self.write_scale * F.linear(normed, self.write_weight).tanh()[..., 0]
            mixed = read.transpose(-1, -2) @ h  # [b n s+1 d]
        y = branch(mixed[..., 0, :].to(x.dtype))
        return (mixed[..., 1:, :] + write[..., None] * wide(y).unsqueeze(-2)).to(x.dtype)

    def flops(self, tokens: int) -> int:
        s = self.streams
        return 2 * tokens * self.width * s * (s + 1 + (s + 2 if self.config.dynamic else 0))

    def kept(self, tokens: int) -> int:
        s = self.streams
        return tokens * (self.width + s * self.width + (2 * s * (s + 3) if self.config.dynamic else 0))
