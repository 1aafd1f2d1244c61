"""What comes in, as it is: cut off, or filled up with zeros, where widths differ.

    y = I x                                                        I is 1 on its diagonal

The shortcut of He 2015, arXiv:1512.03385 section 3.3, option A. Heads whose trunk gives what is asked for already (SigLIP's
attention pooling).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.projection import Projection


class Identity(Projection):
    class Config(Projection.Config):
        pass

    dense = False

    def forward(self, x: Tensor) -> Tensor:
        return x if self.width_in == self.width_out else F.pad(x, (0, self.width_out - self.width_in))

    def flops(self, tokens: int) -> int:
        return 0
