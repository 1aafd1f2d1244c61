"""Perceiver resampling: a fixed number of latents read a memory of any length, and each other.

    y = softmax(Q K^T / sqrt(d_h)) V W_o,   Q = z W_q,   K V = [norm(memory); z] W_kv        z the normed latents

For a trunk of latents (`inputs: []`, `registers: R`, `cross_attends: …`, `mixer: null`), whose output has R tokens whatever
was read. Alayrac 2022 (Flamingo), arXiv:2204.14198 section 2.1; Jaegle 2021 (Perceiver), arXiv:2103.03206. Idefics. Learned
embeddings of frames are the memory's own positions. Bias-free, as published.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.mixing import Mixer, Project, default_heads
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Constant, Rule
from sevenfold.core.types import Hidden, Mask, wide


class Resampler(Mixer):
    class Config(Mixer.Config):
        heads: int | None = Field(None, ge=1, le=4096)
        """How many heads; the width must be a multiple. By default heads of width 64 (32 in trunks narrower than 256),
        or as near as divides."""
        memory_width: int | None = Field(None, ge=1)
        """Width of the memory's vectors, which must be the trunk's own: one map makes keys and values of both."""

    crosses = True
    joins = True
    continues = False
    variants = ({"heads": 4},)

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        if config.memory_width not in (None, width):
            raise ConfigError(
                f"resampler: reads vectors of width {config.memory_width} with latents of width {width}: make them equal"
            )
        self.split = config.heads or default_heads(width)
        if width % self.split:
            raise ConfigError(f"resampler: {self.split} heads do not divide the width {width}")
        self.norm = nn.LayerNorm(width)
        self.query = self.project(width, width)
        self.key_value = self.project(width, 2 * width)
        self.out = self.project(width, width)

    def rules(self) -> dict[str, Rule]:
        return {"norm.weight": Constant(1.0), "norm.bias": Constant()}

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.split, -1)).transpose(1, 2)

    def _read(self, hidden: Hidden) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values [b h m+n d_h] of memory and latents, and which may be looked at, [b 1 1 m+n]."""
        memory = hidden.memory
        both = torch.cat([self.norm(memory.x).to(hidden.x.dtype), hidden.x], 1)
        k, v = self.key_value(both).chunk(2, dim=-1)
        seen = None
        if memory.valid is not None or hidden.valid is not None:
            parts = [
                torch.ones(part.x.shape[:2], dtype=torch.bool, device=part.x.device)
                if part.valid is None
                else part.valid
                for part in (memory, hidden)
            ]
            seen = torch.cat(parts, 1)
            if hidden.valid is not None:  # no row is empty, padding included
                seen = seen | ~seen.any(1, keepdim=True)
            seen = seen[:, None, None, :]
        return self._heads(k), self._heads(v), seen

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        k, v, seen = self._read(hidden)
        y = F.scaled_dot_product_attention(self._heads(self.query(hidden.x)), k, v, attn_mask=seen)
        return self.out(y.transpose(1, 2).flatten(2))

    def weights(self, hidden: Hidden, mask: Mask = Mask(), rows: Tensor | None = None) -> Tensor:  # noqa: B008
        k, _, seen = self._read(hidden)
        q = self._heads(self.query(hidden.x))
        score = (wide(q) @ wide(k).transpose(-1, -2)) * q.shape[-1] ** -0.5
        if seen is not None:
            score = score.masked_fill(~seen, float("-inf"))
        weights = score.softmax(-1)
        return weights if rows is None else weights[:, :, rows]

    def values(self, hidden: Hidden) -> Tensor:
        return self._read(hidden)[1]

    def flops(self, tokens: int, attended: int) -> int:
        both = tokens + attended
        return 4 * tokens * self.width**2 + 4 * both * self.width**2 + 4 * tokens * both * self.width

    def kept(self, tokens: int, attended: int) -> int:
        both = tokens + attended
        return self.width * (2 * tokens + 3 * both) + tokens * self.split + 2 * attended + both

    def cached(self, tokens: int) -> int:
        return 0
