"""Two convolutions over frames, computed for each token from the five frames that it looks at.

    h_j = gelu(W_1 [f_(j-1); f_j; f_(j+1)] + b_1)  for j = 1, 2, 3, and 0 where there is no frame j
    y = gelu(W_2 [h_1; h_2; h_3] + b_2)                                         W ~ N(0, 1/width_in)

A token is five frames f_0 … f_4 of c numbers and, with each, 1 where there is such a frame and 0 beyond the ends: the
tokenizer `mel_window`. It is a convolution of kernel 3, and one of kernel 3 and stride 2, both padded with zeros; each
token stands alone, for half as much again of the first one's work. Radford 2022 (Whisper), arXiv:2212.04356 section 2.2.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.projection import Projection
from sevenfold.blocks.projection.linear import Linear
from sevenfold.core.errors import ConfigError

FRAMES, KERNEL = 5, 3


class ConvStem(Projection):
    """forward(x [… 5(c+1)]) → [… width_out]."""

    class Config(Projection.Config):
        pass

    dense = False
    example_width = 25

    def __init__(self, config: Any, width_in: int, width_out: int):
        super().__init__(config, width_in, width_out)
        if width_in % FRAMES or width_in < 2 * FRAMES:
            raise ConfigError(
                f"projection 'conv_stem': a token of {width_in} numbers is not made of 5 frames: give it those of mel_window "
                "with context 2"
            )
        self.channels = width_in // FRAMES - 1
        self.first = self._linear(KERNEL * self.channels)
        self.second = self._linear(KERNEL * width_out)

    def _linear(self, width_in: int) -> Projection:
        return Linear.Config(bias=True, std=self.config.std or width_in**-0.5).build(width_in, self.width_out)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.unflatten(-1, (FRAMES, self.channels + 1))
        seen, there = frames[..., :-1], frames[..., 1:-1, -1:] > 0.5
        near = torch.cat([seen[..., place : place + KERNEL, :] for place in range(KERNEL)], -1)  # [… 3 3c]
        h = F.gelu(self.first(near)).masked_fill(~there, 0.0)
        return F.gelu(self.second(h.flatten(-2)))

    def flops(self, tokens: int) -> int:
        return 2 * tokens * KERNEL * self.width_out * (KERNEL * self.channels + self.width_out)

    def kept(self, tokens: int) -> int:
        return tokens * (KERNEL * KERNEL * self.channels + (2 * KERNEL + 1) * self.width_out)
