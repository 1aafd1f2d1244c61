"""Matrix and vectors in 8 bits, products in whole numbers: each row of W has a scale, and each x, found when it comes.

    y_i = s_i t (q_i p) + b_i,   q_ij = round(W_ij / s_i),   p_j = round(x_j / t)         s_i = max_j |W_ij|/127, t = max |x|/127

Dettmers 2022, arXiv:2208.07339 section 2 (vector-wise absmax of both sides); Zafrir 2019, arXiv:1910.06188 (Q8BERT). What
CTranslate2 calls int8. Sums are whole numbers, so a row gives the same whatever stands beside it; faster than `int8` for
several rows, less exact where a few channels of x are very large. Where the processor has no such products, W' is used.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.projection.packing import Packing, has


class Int8Dynamic(Packing):
    class Config(Packing.Config):
        pass

    error, rounds = 0.5 / 127 * (1 + 2.0**-6), 0.5 / 127 * (1 + 2.0**-6)

    def keep(self, weight: Tensor) -> None:
        self.scale = (weight.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        self.q = (weight / self.scale[:, None]).round().to(torch.int8)
        self.zero = torch.zeros(self.width_out, dtype=torch.int32)
        self.kernel: Any = None
        if has("onednn.qlinear_pointwise", weight) and torch.cpu._is_vnni_supported():  # others would cut sums off
            self.q, self.kernel = torch.ops.onednn.qlinear_prepack(self.q, None), torch.ops.onednn.qlinear_pointwise

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.width_in).float()
        size = rows.abs().amax(-1, keepdim=True).clamp_(min=1e-30).div_(127)
        whole = (rows / size).add_(128.5)  # cut off below: rounded, and 128 is 0
        if self.kernel is None:
            y = F.linear(whole.floor_().sub_(128), self.q.float()) * self.scale
        else:
            told: tuple[Any, ...] = (self.q, self.scale, self.zero, None, 1.0, 0, torch.float32, "none", [], "")
            y = self.kernel(whole.to(torch.uint8), 1.0, 128, *told)
        y = y * size if self.bias is None else torch.addcmul(self.bias, y, size)
        return y.view(*x.shape[:-1], self.width_out).to(x.dtype)

    @property
    def bytes(self) -> int:
        return self.width_in * self.width_out + 8 * self.width_out
