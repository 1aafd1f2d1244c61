"""A matrix in 8 bits, each row with a scale of its own; x as it is: a quarter of the bytes of float32.

    y_i = s_i (q_i x) + b_i,   q_ij = round(W_ij / s_i),   s_i = max_j |W_ij| / 127         x and y in bf16, sums in float32

Dettmers 2022, arXiv:2208.07339 section 2 (absmax, row by row). Where torch has no kernel, and for many vectors at once, W' is
made in bf16 and used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.projection.packing import Packing, has, padded, rows_of, up

FEW = 24
"""Up to so many vectors the kernel that reads 8 bits is faster."""


class Int8(Packing):
    class Config(Packing.Config):
        pass

    error, rounds = 0.5 / 127 * (1 + 2.0**-6), 2.0**-8

    def keep(self, weight: Tensor) -> None:
        weight = padded(weight, up(self.width_in, 32))  # the kernel reads 32 columns at a time
        largest = weight.abs().amax(1) / 127
        self.scale = (largest * (1 + 2.0**-8)).to(torch.bfloat16)  # rounded up: nothing is cut off
        scale = self.scale.float().clamp(min=torch.finfo(torch.float32).tiny)
        self.q = (weight / scale[:, None]).round().to(torch.int8)
        self.kernel = has("aten._weight_int8pack_mm", weight)

    def product(self, x: Tensor) -> Tensor:
        rows = rows_of(x, self.q.shape[1])
        if self.kernel and len(rows) <= FEW:
            y = torch._weight_int8pack_mm(rows, self.q, self.scale)
        else:
            y = F.linear(rows, self.q.to(torch.bfloat16)) * self.scale
        return y.view(*x.shape[:-1], self.width_out)
