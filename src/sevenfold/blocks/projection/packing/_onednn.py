"""Matrices in the order in which oneDNN reads them, in the precision that they are given in."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.projection.packing import has

ROWS = 4
"""One vector is multiplied as so many: oneDNN then reads a fifth faster (AMD Zen 5, one thread: 25 ms instead of 32 for the
matrices of GPT-2 small in float32)."""


class Ordered:
    """y = W x. Where oneDNN is not at hand, the matrix as it is."""

    def __init__(self, weight: Tensor):
        self.bytes, self.dtype = weight.numel() * weight.element_size(), weight.dtype
        self.kernel: Any = None
        self.weight = weight
        if has("mkldnn._linear_pointwise", weight) and torch.backends.mkldnn.is_available():
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight)
            self.kernel = torch.ops.mkldnn._linear_pointwise

    def __call__(self, x: Tensor) -> Tensor:
        """x [… k] → [… n], in the dtype of the matrix."""
        x = x if x.dtype == self.dtype else x.to(self.dtype)
        if self.kernel is None:
            return F.linear(x, self.weight)
        if x.numel() > x.shape[-1]:
            return self.kernel(x, self.weight, None, "none", [], "")
        rows = x.reshape(1, -1).expand(ROWS, -1).contiguous()
        return self.kernel(rows, self.weight, None, "none", [], "")[:1].view(*x.shape[:-1], -1)
