"""All keys and values in 8 bits, each vector with a scale of its own: a quarter of the memory of float32.

    q = round(x / s),   s = max |x| / 127,   x' = s q            |x' - x| <= s / 2

Dettmers 2022, arXiv:2208.07339 section 2 (absmax, vector by vector); of keys and values: Sheng 2023, arXiv:2303.06865
section 4 (FlexGen). It saves memory, not time: what is read is widened first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sevenfold.blocks.mixing.cache import Cache


class Quantised(Cache):
    class Config(Cache.Config):
        pass

    error = 0.5 / 127

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        scale = x.abs().amax(-1, keepdim=True) / 127
        return (x / scale.clamp(min=torch.finfo(x.dtype).tiny)).round().to(torch.int8), scale

    def decode(self, kept: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
        whole, scale = kept
        return whole.to(dtype) * scale.to(dtype)
