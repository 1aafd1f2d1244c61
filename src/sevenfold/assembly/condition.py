"""What adaptive parts of a trunk are told: the mean of a stream's embedded tokens, or a learned vector where it is absent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sevenfold.assembly.pieces import embedded, projection_of
from sevenfold.blocks.projection import Projection
from sevenfold.core.initial import Normal, Rule, Ruled
from sevenfold.core.types import Batch
from sevenfold.modality import Modality


class Condition(Ruled):
    """A batch → [rows width]. Ids begin as large as vectors are: adaptive parts begin at 0."""

    def __init__(self, name: str, modality: Modality, width: int, dropout: float):
        super().__init__()
        self.name, self.dropout = name, dropout
        told = projection_of(name, modality)
        if told.part.reads_ids and told.std is None:
            told = told.replace(std=1.0)
        self.embed: Projection = told.build(modality.tokenizer.size or modality.tokenizer.features, width)
        self.null = nn.Parameter(torch.empty(width))
        self.begin()

    def rules(self) -> dict[str, Rule]:
        return {"null": Normal(1.0)}

    def forward(self, batch: Batch, rows: int) -> Tensor:
        """Of rows without the stream, and of a share of all in training, the learned vector."""
        null, stream = self.null.expand(rows, -1), batch.get(self.name)
        if stream is None:
            return null
        x, valid = embedded(self.embed, stream.values, stream.valid, stream.segments), stream.valid
        there = torch.ones(rows, 1, dtype=torch.bool, device=x.device)
        if valid is not None:
            there = valid.any(1, keepdim=True)
            x = x.masked_fill(~valid[..., None], 0).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
        else:
            x = x.mean(1)
        if self.training and self.dropout:
            there = there & (torch.rand(rows, 1, device=x.device) >= self.dropout)
        return torch.where(there, x, null.to(x.dtype))
