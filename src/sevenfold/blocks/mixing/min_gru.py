"""A gated linear recurrence, run as a parallel scan: the minimal GRU.

    h_t = (1 - z_t) h_{t-1} + z_t c_t,   z_t = sigmoid(x_t W_z),   c_t = x_t W_c,   y_t = (h_t * silu(x_t W_g)) W_o

Feng 2024, arXiv:2410.01201 eq. 5 (gates see the input only, so the recurrence is linear and scans). Cost O(n log n)
here, by doubling in float32; constant memory when stepping. Without a causal mask, a second pass runs backwards and is
added.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.mixing import Mixer, Project, starts
from sevenfold.core.types import Hidden, Mask, wide


class MinGRU(Mixer):
    class Config(Mixer.Config):
        pass

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.up = self.project(width, 3 * width)
        self.out = self.project(width, width)

    def _gates(self, hidden: Hidden) -> tuple[Tensor, Tensor, Tensor]:
        """(keep [b n d], input [b n d], gate [b n d]), at least in float32; padding keeps everything and adds nothing."""
        z, candidate, gate = self.up(hidden.x).chunk(3, dim=-1)
        z = torch.sigmoid(wide(z))
        keep, new = 1 - z, z * wide(candidate)
        if hidden.valid is not None:
            real = hidden.valid.unsqueeze(-1)
            keep, new = torch.where(real, keep, 1.0), torch.where(real, new, 0.0)
        return keep, new, gate

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        keep, new, gate = self._gates(hidden)
        begins = starts(hidden)
        forward_keep = keep if begins is None else keep.masked_fill(begins.unsqueeze(-1), 0.0)
        h = scan(forward_keep, new)
        if not mask.causal:
            ends = None if begins is None else torch.cat([begins[:, 1:], torch.ones_like(begins[:, :1])], 1).flip(1)
            back_keep = keep.flip(1)
            back_keep = back_keep if ends is None else back_keep.masked_fill(ends.unsqueeze(-1), 0.0)
            h = h + scan(back_keep, new.flip(1)).flip(1)
        return self.out(h.to(gate.dtype) * F.silu(gate))

    def start(self, rows: int, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        h = wide(like.new_zeros(rows, self.width))
        return h, torch.full((rows,), -(2**31), dtype=torch.long, device=like.device)

    def step(self, hidden: Hidden, state: tuple[Tensor, Tensor], mask: Mask) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        keep, new, gate = self._gates(hidden)
        h, segment = state
        ids = hidden.segments if hidden.segments is not None else torch.zeros_like(keep[..., 0], dtype=torch.long)
        before = torch.cat([segment[:, None], ids[:, :-1]], dim=1)
        keep = keep.masked_fill((ids != before).unsqueeze(-1), 0.0)
        new = torch.cat([new[:, :1] + keep[:, :1] * h[:, None], new[:, 1:]], dim=1)
        out = scan(keep, new)
        return self.out(out.to(gate.dtype) * F.silu(gate)), (out[:, -1], ids[:, -1])

    def flops(self, tokens: int, attended: int) -> int:
        return 8 * tokens * self.width**2


def scan(keep: Tensor, new: Tensor) -> Tensor:
    """h_t = keep_t h_{t-1} + new_t over dimension 1, h_0 = new_0, by doubling: log2(n) steps over the whole sequence."""
    n, reach = new.shape[1], 1
    while reach < n:
        shifted = F.pad(new[:, :-reach], (0, 0, reach, 0))
        before = F.pad(keep[:, :-reach], (0, 0, reach, 0))
        new, keep = new + keep * shifted, keep * before
        reach *= 2
    return new
