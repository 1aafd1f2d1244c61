"""A matrix in bfloat16, half the bytes of float32.

    y = W' x + b,   W' = bf16(W)        2 bytes an entry; x and y in bf16, sums in float32

Kalamkar 2019, arXiv:1905.12322.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sevenfold.blocks.projection.packing import Packing
from sevenfold.blocks.projection.packing._onednn import Ordered


class BFloat16(Packing):
    class Config(Packing.Config):
        pass

    error, rounds = 2.0**-9, 2.0**-8

    def keep(self, weight: Tensor) -> None:
        self.matrix = Ordered(weight.to(torch.bfloat16))

    def product(self, x: Tensor) -> Tensor:
        return self.matrix(x)

    @property
    def bytes(self) -> int:
        return self.matrix.bytes
