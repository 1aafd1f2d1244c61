"""The perceptrons that stand between a representation and its loss, and are thrown away after training.

    x -> [linear -> batch norm -> ReLU] (layers - 1 times) -> linear (-> batch norm)

Chen 2020 (SimCLR), arXiv:2002.05709 section 2.1; Grill 2020 (BYOL), arXiv:2006.07733 section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from sevenfold.core.modules import ModuleList
from sevenfold.core.part import find


class Projector(nn.Module):
    """x [b d] → [b out]."""

    def __init__(
        self,
        width: int,
        hidden: int,
        out: int,
        layers: int = 2,
        norm: str | None = "batch",
        last_norm: bool = False,
        act: Callable[[Tensor], Tensor] = F.relu,
    ):
        """`norm`: the kind of norm between layers (batch, layer), or None; `last_norm`: one after the last layer too;
        `act`: what stands between layers."""
        super().__init__()
        widths = [width, *[hidden] * (layers - 1), out]
        linear, kind = find("projection", "linear"), None if norm is None else find("normalization", norm)
        self.linears: ModuleList[nn.Module] = ModuleList(
            linear.Config(bias=kind is None or place == layers - 1).build(a, b)
            for place, (a, b) in enumerate(zip(widths, widths[1:]))
        )
        self.norms: ModuleList[nn.Module] = ModuleList(
            kind.Config().build(b) for b in widths[1 : layers + bool(last_norm)] if kind is not None
        )
        self.widths, self.act = widths, act

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.linears) - 1
        for place, linear in enumerate(self.linears):
            x = linear(x)
            if place < len(self.norms):
                x = self.norms[place](x)
            if place < last:
                x = self.act(x)
        return x

    def flops(self, rows: int = 1) -> int:
        return 2 * rows * sum(a * b for a, b in zip(self.widths, self.widths[1:]))
