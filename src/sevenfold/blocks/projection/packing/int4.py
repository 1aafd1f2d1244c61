"""A matrix in 4 bits, each group of columns of a row with a scale and a zero of its own: an eighth of the bytes of float32.

    W'_ij = s_ig (q_ij - 8) + z_ig,   q in 0…15,   s = (max - min)/15,   z = min + 8 s   of the group g of column j
    y = W' x + b                        (4 + 32/group) bits an entry; x and y in bf16, sums in float32

Rounding to nearest, group by group: Yao 2022, arXiv:2206.01861 section 4.1; Frantar 2022, arXiv:2210.17323 section 5. A width
that is no multiple of the group is filled up with columns of 0, in W and in x. Where torch has no kernel, and for many vectors
at once, W' is made in bf16 and used.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.projection.packing import Packing, has, padded, rows_of, up

FEW = 128
"""Up to so many vectors the kernel that reads 4 bits is faster."""
ROWS = (64, 32)
"""How many rows the kernel's layout may put together (by what the processor has)."""


class Int4(Packing):
    class Config(Packing.Config):
        group: Literal[32, 64, 128, 256] = 64
        """Columns that share a scale and a zero."""

    error, rounds = 1 / 15 + 2.0**-7, 2.0**-8
    variants = ({"group": 32},)

    def keep(self, weight: Tensor) -> None:
        group, rows = self.config.group, up(self.width_out, ROWS[0])
        weight = F.pad(padded(weight, up(self.width_in, group)), (0, 0, 0, rows - self.width_out))
        parts = weight.unflatten(1, (-1, group))
        least, most = parts.amin(-1), parts.amax(-1)
        scale = ((most - least) / 15 * (1 + 2.0**-8)).to(torch.bfloat16)  # rounded up: nothing is cut off
        zero = (least + 8 * scale.float()).to(torch.bfloat16)
        size = scale.float().clamp(min=torch.finfo(torch.float32).tiny)
        q = ((parts - zero.float()[..., None]) / size[..., None] + 8).round().clamp(0, 15).to(torch.int32).flatten(1)
        self.scales = torch.stack([scale, zero], -1).transpose(0, 1).contiguous()
        self.rows = 0
        if has("aten._weight_int4pack_mm_for_cpu", weight):
            self.q = torch._convert_weight_to_int4pack_for_cpu(q, 1)
            self.rows = next((rows for rows in ROWS if torch.equal(unpacked(self.q, rows), q.to(torch.uint8))), -1)
        else:
            self.q = q[:, ::2].to(torch.uint8) | (q[:, 1::2] << 4).to(torch.uint8)

    def product(self, x: Tensor) -> Tensor:
        rows = rows_of(x, 2 * self.q.shape[1])
        if self.rows and (len(rows) <= FEW or self.rows < 0):
            y = torch._weight_int4pack_mm_for_cpu(rows, self.q, self.config.group, self.scales)
        else:
            y = F.linear(rows, self.matrix())
        y = y if y.shape[1] == self.width_out else y[:, : self.width_out]
        return y.reshape(*x.shape[:-1], self.width_out)

    def matrix(self) -> Tensor:
        """W' in bf16, with rows and columns of 0 up to whole groups."""
        if self.rows:
            q = unpacked(self.q, self.rows)
        else:
            q = torch.stack([self.q & 15, self.q >> 4], -1).flatten(1)
        scale, zero = self.scales.transpose(0, 1).unbind(-1)
        q = (q.to(torch.bfloat16) - 8).unflatten(1, (-1, self.config.group))
        return torch.addcmul(zero[..., None], q, scale[..., None]).flatten(1)


def unpacked(packed: Tensor, rows: int) -> Tensor:
    """q [n k] uint8 from the kernel's layout [n k/2]: `rows` rows together, column by column, the second half in the upper
    four bits."""
    n, columns = packed.shape[0], 2 * packed.shape[1]
    part = packed.view(n // rows, columns, rows // 2)
    return torch.cat([part & 15, part >> 4], -1).transpose(1, 2).reshape(n, columns)
