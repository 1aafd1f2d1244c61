"""Runs of neighbouring tokens hidden together, along the first axis.

    s_i = u_(r + i) // length,   r ~ U{0 ... length - 1},   u_k ~ U(0, 1)

Joshi 2020 (SpanBERT), arXiv:1907.10529 section 3.1, with runs of one length. Overlapping k-mers need runs of at least k, for
a neighbour gives them away; residues and frames of sound do likewise.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.objective.masker import Masker


class Span(Masker):
    class Config(Masker.Config):
        length: int = Field(3, ge=1)
        """Tokens of a run."""

    variants = ({"length": 5},)

    def scores(self, coords: Tensor, eligible: Tensor) -> Tensor:
        b, n = eligible.shape
        shift = torch.randint(self.config.length, (b, 1), device=coords.device)
        run = (torch.arange(n, device=coords.device) + shift) // self.config.length
        return torch.rand(b, n // self.config.length + 2, device=coords.device).gather(1, run)
