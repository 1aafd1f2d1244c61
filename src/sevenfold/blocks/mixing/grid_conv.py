"""Convolution over a grid of tokens: each token reads the square around it, by the same weights everywhere.

    y = relu(conv_kxk(x) + b) W_o        0 beyond the edges and at padding; groups: all channels together, or each by itself

Dense (`groups: 1`): LeCun 1989, doi:10.1162/neco.1989.1.4.541, the 3 x 3 of ResNet, arXiv:1512.03385. Depthwise (by default):
ConvMixer, arXiv:2201.09792 section 2; ConvNeXt, arXiv:2201.03545 section 2.4, whose wide feed-forward part is the block's. Cost
O(n k^2 d^2 / groups). It needs tokens that are one whole grid (see row_attention), so no documents are packed into it, and works
without a causal mask only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from sevenfold.blocks.mixing import Mixer, Project
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Constant, Normal, Rule
from sevenfold.core.types import Hidden, Mask


class GridConv(Mixer):
    class Config(Mixer.Config):
        kernel: int = Field(3, ge=1, le=63)
        """Side of the square that a token reads, in tokens: odd, so that the token is in the middle."""
        groups: int | None = Field(None, ge=1)
        """Groups of channels that are convolved apart; 1: all together (dense); by default each channel by itself
        (depthwise)."""

        @field_validator("kernel")
        @classmethod
        def _odd(cls, kernel: int) -> int:
            if kernel % 2 == 0:
                raise ValueError(f"{kernel} has no middle: choose {kernel - 1} or {kernel + 1}")
            return kernel

    needs = frozenset({"grid"})
    narrow = True
    continues = False
    variants = ({"groups": 1}, {"kernel": 5, "groups": 2}, {"kernel": 1})

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.groups = config.groups or width
        if width % self.groups:
            raise ConfigError(f"mixer.groups: {self.groups} groups do not divide a width of {width}")
        self.taps = nn.Parameter(torch.empty(width, width // self.groups, config.kernel, config.kernel))
        self.bias = nn.Parameter(torch.empty(width))
        self.out = self.project(width, width)

    def rules(self) -> dict[str, Rule]:
        return {"taps": Normal((2 / self.taps[0].numel()) ** 0.5), "bias": Constant()}

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        assert hidden.grid is not None, "a trunk gives its grid"
        x = hidden.x if hidden.valid is None else hidden.x * hidden.valid.unsqueeze(-1)
        x = x.unflatten(1, hidden.grid).permute(0, 3, 1, 2)  # as it lies in memory: channels last
        taps = self.taps.to(x.dtype, memory_format=torch.channels_last)
        y = F.conv2d(x, taps, self.bias.to(x.dtype), padding=self.config.kernel // 2, groups=self.groups)
        return self.out(F.relu(y.permute(0, 2, 3, 1).flatten(1, 2)))

    def flops(self, tokens: int, attended: int) -> int:
        return 2 * tokens * self.taps.numel() + 2 * tokens * self.width**2

    def kept(self, tokens: int, attended: int) -> int:
        return tokens * self.width
