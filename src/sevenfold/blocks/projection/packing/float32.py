"""A matrix in single precision, in the order in which oneDNN reads it: the same numbers, read faster.

    y = W x + b                         4 bytes an entry, products in float32

uxlfoundation.github.io/oneDNN/dev_guide_matmul.html (weights in a blocked layout).
"""

from __future__ import annotations

from torch import Tensor

from sevenfold.blocks.projection.packing import Packing
from sevenfold.blocks.projection.packing._onednn import Ordered


class Float32(Packing):
    class Config(Packing.Config):
        pass

    error, rounds = 2.0**-24, 2.0**-20

    def keep(self, weight: Tensor) -> None:
        self.matrix = Ordered(weight)

    def product(self, x: Tensor) -> Tensor:
        return self.matrix(x)

    @property
    def bytes(self) -> int:
        return self.matrix.bytes
