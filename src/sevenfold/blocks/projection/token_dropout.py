"""Ids to vectors, a mask token to none: what is masked is dropped, and what is left is scaled to the size of training.

    y_i = E[id_i] [id_i is no mask] (1 - 0.15 * 0.8) / (1 - share of masks among the tokens of its document)

So the sum of a document's vectors is about the same whatever number of its tokens is hidden, as in dropout, and without any
hidden it is what training saw on average. A document of masks alone has 0. Lin 2023, doi:10.1126/science.ade2574, and
Rives 2021, doi:10.1073/pnas.2016239118 (`token_dropout` of their released models). ESM-1b, ESM-1v, ESM-2.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.projection import Projection
from sevenfold.core.initial import Normal, Rule
from sevenfold.core.types import wide


class TokenDropout(Projection):
    """forward(ids [b n], valid, segments) → [b n width_out]; width_in is the number of ids. `weight` is [width_in width_out]."""

    class Config(Projection.Config):
        mask_id: int | None = Field(None, ge=0)
        """The id that hides a token; by default the tokenizer's."""
        trained: float = Field(0.12, ge=0, lt=1)
        """The share of mask tokens in training."""

    reads_ids = reads_row = True
    variants = ({"mask_id": 3},)

    def __init__(self, config: Any, width_in: int, width_out: int):
        super().__init__(config, width_in, width_out)
        self.weight = nn.Parameter(torch.empty(width_in, width_out))

    def rules(self) -> dict[str, Rule]:
        return {"weight": Normal(self.config.std or 0.02, decays=True)}

    def forward(self, x: Tensor, valid: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        y = F.embedding(x, self.weight)
        masked = torch.zeros_like(x, dtype=torch.bool) if self.config.mask_id is None else x == self.config.mask_id
        real = torch.ones_like(masked) if valid is None else valid
        tokens, left = _of_document(real, segments), _of_document(real & ~masked, segments)
        scale = (1 - self.config.trained) * tokens.to(wide(y).dtype) / left.clamp(min=1)
        return y * (scale * ~masked).to(y.dtype).unsqueeze(-1)

    def flops(self, tokens: int) -> int:
        return 0

    def kept(self, tokens: int) -> int:
        return tokens


def _of_document(counted: Tensor, segments: Tensor | None) -> Tensor:
    """counted [b n] bool → how many of each one's document, [b n] (of one document: [b 1])."""
    if segments is None:
        return counted.sum(1, keepdim=True)
    return ((segments[:, :, None] == segments[:, None, :]) & counted[:, None]).sum(-1)
