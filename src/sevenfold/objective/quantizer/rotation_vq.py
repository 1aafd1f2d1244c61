"""Vector quantization whose gradient is turned with the vector, instead of copied to it.

    out = (|e| / |z|) R z,   R = I - 2 r r^T + 2 e^ z^^T,   r = norm(z^ + e^),   R and the ratio held constant

Fifty 2024, arXiv:2410.06424 sec. 4.2. Forward it is the code e; backward, the gradient keeps its angle to the code when
it is given to z, so vectors of one cell get different gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sevenfold.objective.quantizer.vq import VQ

LEAST = 1e-6
"""Below it a length or a sum of two directions has no direction, and the gradient is copied."""


class RotationVQ(VQ):
    def carried(self, z: Tensor, e: Tensor) -> Tensor:
        with torch.no_grad():
            long_z, long_e = z.norm(dim=-1, keepdim=True), e.norm(dim=-1, keepdim=True)
            from_z, from_e = z / long_z.clamp(min=LEAST), e / long_e.clamp(min=LEAST)
            middle = from_z + from_e
            length = middle.norm(dim=-1, keepdim=True)
            r, ratio = middle / length.clamp(min=LEAST), long_e / long_z.clamp(min=LEAST)
            lost = (long_z < LEAST) | (long_e < LEAST) | (length < LEAST)
        turned = z - 2 * (z * r).sum(-1, keepdim=True) * r + 2 * (z * from_z).sum(-1, keepdim=True) * from_e
        return torch.where(lost, super().carried(z, e), ratio * turned)
