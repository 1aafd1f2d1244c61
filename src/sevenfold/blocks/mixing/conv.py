"""Local convolution: each channel mixes its neighbourhood, then a gate and projections mix channels.

    y = (conv_k(u) * silu(g)) W_o,   [u g] = x W_in         depthwise kernel of k taps; causal: the last k tokens only

ConvNet mixing in the line of ConvNeXt, arXiv:2201.03545, gated as in gated convolutional language models,
arXiv:1612.08083. Cost O(n k d). Taps do not reach into other segments.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.mixing import Mixer, Project
from sevenfold.core.initial import Normal, Rule
from sevenfold.core.types import Hidden, Mask


class Conv(Mixer):
    class Config(Mixer.Config):
        kernel: int = Field(7, ge=1, le=4096)
        """Taps. Causal: this token and the kernel-1 before; else as many on each side as fit (kernel // 2)."""

    variants = ({"kernel": 1}, {"kernel": 4})

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.kernel = config.kernel
        self.up = self.project(width, 2 * width)
        self.taps = nn.Parameter(torch.empty(width, config.kernel))
        self.out = self.project(width, width)

    def rules(self) -> dict[str, Rule]:
        return {"taps": Normal(self.kernel**-0.5)}

    def _mix(self, u: Tensor, reach: tuple[int, int], segments: Tensor | None) -> Tensor:
        """u [b n d], with `reach` taps before and after."""
        if segments is None:
            padded = F.pad(u.transpose(1, 2), reach)
            return F.conv1d(padded, self.taps[:, None].to(u.dtype), groups=u.shape[-1]).transpose(1, 2)
        y = torch.zeros_like(u)
        near, ids = F.pad(u, (0, 0, *reach)), F.pad(segments, reach, value=-(2**31))
        n = u.shape[1]
        for tap in range(self.kernel):
            same = (ids[:, tap : tap + n] == segments).unsqueeze(-1)
            y = y + near[:, tap : tap + n] * same * self.taps[:, tap].to(u.dtype)
        return y

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        u, gate = self.up(hidden.x).chunk(2, dim=-1)
        if hidden.valid is not None:
            u = u * hidden.valid.unsqueeze(-1)
        before = self.kernel - 1 if mask.causal else self.kernel // 2
        return self.out(self._mix(u, (before, self.kernel - 1 - before), hidden.segments) * F.silu(gate))

    def start(self, rows: int, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        past = like.new_zeros(rows, self.kernel - 1, self.width)
        return past, torch.zeros(rows, self.kernel - 1, dtype=torch.long, device=like.device)

    def step(self, hidden: Hidden, state: tuple[Tensor, Tensor], mask: Mask) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        u, gate = self.up(hidden.x).chunk(2, dim=-1)
        if hidden.valid is not None:
            u = u * hidden.valid.unsqueeze(-1)
        past, ids = state
        n = u.shape[1]
        segments = u.new_zeros(u.shape[:2], dtype=torch.long) if hidden.segments is None else hidden.segments
        whole, every = torch.cat([past.to(u.dtype), u], 1), torch.cat([ids, segments], 1)
        y = torch.zeros_like(u)
        for tap in range(self.kernel):
            same = (every[:, tap : tap + n] == segments).unsqueeze(-1)
            y = y + whole[:, tap : tap + n] * same * self.taps[:, tap].to(u.dtype)
        return self.out(y * F.silu(gate)), (whole[:, n:], every[:, n:])

    def flops(self, tokens: int, attended: int) -> int:
        return 6 * tokens * self.width**2 + 2 * tokens * self.kernel * self.width

    def kept(self, tokens: int, attended: int) -> int:
        return (6 * tokens + self.kernel - 1) * self.width

    def cached(self, tokens: int) -> int:
        return (self.kernel - 1) * self.width
