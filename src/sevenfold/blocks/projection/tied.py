"""An output head that reads the input embedding's table.

    logits = E x + b                    E [v d] shared with the embedding

Press and Wolf 2016, arXiv:1608.05859. GPT-2, BERT, Llama 3.2 1B, ESM-2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sevenfold.blocks.projection import Projection
from sevenfold.blocks.projection._product import linear
from sevenfold.core.initial import Constant, Rule


class Tied(Projection):
    """forward(x [… d], table [v d]) → [… v]."""

    class Config(Projection.Config):
        bias: bool = False
        """Whether b [v] is there (BERT, ESM-2)."""

    reads_table = True
    variants = ({"bias": True},)

    def __init__(self, config: Any, width_in: int, width_out: int):
        super().__init__(config, width_in, width_out)
        self.bias = nn.Parameter(torch.empty(width_out)) if config.bias else None

    def rules(self) -> dict[str, Rule]:
        return {} if self.bias is None else {"bias": Constant()}

    def forward(self, x: Tensor, table: Tensor) -> Tensor:  # type: ignore[override]
        return linear(x, table, self.bias)

    def matrix(self, table: Tensor | None = None) -> tuple[Tensor, Tensor | None] | None:
        return None if table is None else (table, self.bias)
