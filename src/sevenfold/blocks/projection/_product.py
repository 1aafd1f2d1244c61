"""y = x W^T + b, by the library that is quicker at it here.

PyTorch sends float32 products to MKL, which keeps its AVX-512 kernels for Intel's processors; on AMD's, oneDNN, which PyTorch brings
along, is quicker at products with W and with W^T, and no quicker at the gradient of W. Both are float32 throughout. Which one is
used depends on the processor and on sizes, and never on a clock: a run that is resumed computes what it would have computed.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sevenfold.core.processor import flags, vendor

SMALL, NARROW = 1 << 23, 256
"""Products of fewer multiplications cost less than asking oneDNN; of matrices narrower than that it is no quicker."""


BOTH = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
QUICKER = BOTH and vendor() == "AuthenticAMD" and "avx512f" in flags()
"""Whether oneDNN is quicker than MKL on this processor."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [… i], W [o i], b [o] or None → [… o]."""
    plain = x.dtype == weight.dtype == torch.float32 and x.device.type == weight.device.type == "cpu"
    wide = QUICKER and plain and type(x) is Tensor and min(weight.shape) >= NARROW
    if wide and not torch.compiler.is_compiling() and x.numel() * len(weight) >= SMALL:
        if type(weight.data) is Tensor and not torch.is_autocast_enabled("cpu"):
            y: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), weight, bias)
            return y.view(*x.shape[:-1], -1)
    return F.linear(x, weight, bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        x_asked, weight_asked, bias_asked = ctx.needs_input_grad
        d_x = linear(d_y, weight.t()) if x_asked else None
        d_weight = d_y.t() @ x if weight_asked else None
        return d_x, d_weight, d_y.sum(0) if bias_asked else None
