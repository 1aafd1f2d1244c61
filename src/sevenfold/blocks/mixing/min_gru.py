"""A gated linear recurrence, run as a parallel scan: the minimal GRU.

    h_t = (1 - z_t) h_{t-1} + z_t c_t,   z_t = sigmoid(x_t W_z),   c_t = x_t W_c,   y_t = (h_t * silu(x_t W_g)) W_o

Feng 2024, arXiv:2410.01201 eq. 5 (gates see the input only, so the recurrence is linear and scans). Cost O(n d^2), in
float32; constant memory when stepping. Without a causal mask, a second pass runs backwards and is added.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.mixing import Project
from sevenfold.blocks.mixing._scan import NOWHERE, Recurrent, begun, borders, scan
from sevenfold.core.types import wide


class MinGRU(Recurrent):
    class Config(Recurrent.Config):
        pass

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.up = self.project(width, 3 * width)
        self.out = self.project(width, width)

    def walk(self, u: Tensor, valid: Tensor | None, ids: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        """Padding keeps everything and adds nothing; where a segment begins, nothing is kept."""
        z, candidate, _ = wide(u).chunk(3, dim=-1)
        z = torch.sigmoid(z)
        keep, new = 1 - z, z * candidate
        if valid is not None:
            keep, new = torch.where(valid.unsqueeze(-1), keep, 1.0), torch.where(valid.unsqueeze(-1), new, 0.0)
        h, last = (torch.zeros_like(new[:, 0]), None) if state is None else state
        begins = begun(ids, last)
        if begins is not None:
            keep = keep.masked_fill(begins.unsqueeze(-1), 0.0)
        y = scan(keep, new, h)
        return y, None if state is None else (y[:, -1], last if ids is None else ids[:, -1])

    def gate(self, y: Tensor, u: Tensor) -> Tensor:
        return y.to(u.dtype) * F.silu(u[..., 2 * self.width :])

    def start(self, rows: int, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        h = wide(like.new_zeros(rows, self.width))
        return h, torch.full((rows,), NOWHERE, dtype=torch.long, device=like.device)

    def flops(self, tokens: int, attended: int) -> int:
        return 8 * tokens * self.width**2

    def kept(self, tokens: int, attended: int) -> int:
        return tokens * self.width * 4 + borders(tokens) * self.cached(tokens)

    def cached(self, tokens: int) -> int:
        return self.width
