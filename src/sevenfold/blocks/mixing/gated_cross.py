"""Cross-attention behind a gate that is closed at first: the trunk is exactly what it was before.

    y = tanh(a) * softmax(Q K^T / sqrt(d_h)) V W_o,   Q = x W_q,   K V = memory W_kv,   a = 0 at first

Alayrac 2022, arXiv:2204.14198 section 2.2 (Flamingo); IDEFICS. Only the gate learns in the first step; the rest follows. A
row whose memory is all padding gets 0. All of the memory is read: that text after an image reads only the latest one is not
part of it. Flamingo's second gate, on the feed-forward part, is the residual's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sevenfold.blocks.mixing import Project
from sevenfold.blocks.mixing.cross import Cross
from sevenfold.core.initial import Constant, Rule
from sevenfold.core.types import Hidden


class GatedCross(Cross):
    class Config(Cross.Config):
        by_channel: bool = False
        """A gate for each channel, instead of one for all."""

    variants = ({"heads": 4, "memory_width": 12, "by_channel": True}, {"heads": 3, "head_width": 10, "scale": 1.0})

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.gate = nn.Parameter(torch.empty(width if config.by_channel else 1))

    def rules(self) -> dict[str, Rule]:
        return {"gate": Constant(0.0)}

    def _attend(self, hidden: Hidden, k: Tensor, v: Tensor) -> Tensor:
        y = super()._attend(hidden, k, v)
        return y * self.gate.tanh().to(y.dtype)

    def values(self, hidden: Hidden) -> Tensor | None:
        return None  # the gate comes after `out`

    def kept(self, tokens: int, attended: int) -> int:
        return super().kept(tokens, attended) + tokens * self.width
