"""Low-rank adaptation: beside each chosen projection stands a product of two thin matrices.

    y = W x + s B A x,   A [r in] ~ U(-in^-1/2, in^-1/2),   B [out r] = 0,   s = alpha / r   (alpha / sqrt(r): `rslora`)

Hu 2021, arXiv:2106.09685 section 4.1; the scale that keeps its size with r, Kalajdzievski 2023, arXiv:2312.03732 eq. 4. B is 0
at the start, so the model is what it was, bit for bit, and A gets its first gradient at the second step. `merged` adds
s B A to W.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.assembly.adapter import Adapter, matching
from sevenfold.blocks.projection import Projection
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Constant, Rule, Ruled, Uniform


class Low(Ruled):
    """s B A x for one projection, [… in] → [… out]."""

    def __init__(self, inside: int, outside: int, rank: int, scale: float, dropout: float, like: Tensor):
        super().__init__()
        self.scale, self.dropout = scale, dropout
        self.A = nn.Parameter(torch.empty(rank, inside, device=like.device, dtype=like.dtype))
        self.B = nn.Parameter(torch.empty(outside, rank, device=like.device, dtype=like.dtype))
        self.begin()

    def rules(self) -> dict[str, Rule]:
        bound = self.A.shape[1] ** -0.5
        return {"A": Uniform(-bound, bound), "B": Constant()}

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(x, self.dropout) if self.dropout and self.training else x
        return F.linear(F.linear(x, self.A), self.B) * self.scale

    def beside(self, _: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
        """What the projection gives, and this (a forward hook of the projection)."""
        return output + self(given[0]).to(output.dtype)

    def delta(self) -> Tensor:
        """s B A [out in] in float64."""
        return self.scale * (self.B.detach().double() @ self.A.detach().double())


class LoRA(Adapter):
    class Config(Adapter.Config):
        rank: int = Field(8, ge=1, le=1 << 14)
        """r."""
        alpha: float = Field(16.0, gt=0)
        """What the product is scaled by, times r."""
        rslora: bool = False
        """Scale by alpha / sqrt(r) instead of alpha / r."""
        dropout: float = Field(0.0, ge=0, lt=1)
        """Share of x dropped on its way into A in training."""
        targets: tuple[str, ...] = ()
        """Which projections: whole names or their ends, as patterns (`qkv`, `feed.*`, `trunks.lm.blocks.0.*`, `heads.*`); by
        default every one in the blocks: attention and feed-forward."""

    variants = ({"rank": 2, "rslora": True}, {"targets": ("qkv",)}, {"targets": ("feed.*", "mixer.out"), "alpha": 4.0})
    merges = True

    @property
    def scale(self) -> float:
        return self.config.alpha / (self.config.rank**0.5 if self.config.rslora else self.config.rank)

    def put(self, model: Any, trunks: Mapping[str, Any]) -> None:
        config = self.config
        known = projections(model)
        blocks = [name for name in known if name.startswith(tuple(f"trunks.{trunk}.blocks." for trunk in trunks))]
        inside = tuple(f"trunks.{trunk}." for trunk in trunks)
        among = [name for name in known if name.startswith((*inside, "heads."))]
        names = matching(config.targets, among, "adapter.targets") if config.targets else blocks
        if not names:
            raise ConfigError(
                f"adapter: the trunks {', '.join(model.trunks)} have no projection that lora can stand beside"
            )
        for name in names:
            place = known[name]
            height, width = place.weight.shape
            low = Low(width, height, config.rank, self.scale, config.dropout, place.weight)
            place.add_module("lora", low)
            place.register_forward_hook(low.beside)

    def idle(self, model: Any) -> list[str]:
        return [name for name, low in lows(model).items() if low.B.grad is None or not bool(low.B.grad.any())]

    def deltas(self, model: Any) -> dict[str, Tensor]:
        return {f"{name}.weight": low.delta() for name, low in lows(model).items()}


def projections(model: nn.Module) -> dict[str, Projection]:
    """Name → each projection of a model that is one matrix of its own: y = W x + b, its W a parameter."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, Projection) and not module.reads_ids and not module.reads_table:
            given = module.matrix()
            if given is not None and given[0] is module.weight and module.weight.dim() == 2:
                found[name] = module
    return found


def lows(model: nn.Module) -> dict[str, Low]:
    """Name of a projection → what stands beside it."""
    return {name.removesuffix(".lora"): module for name, module in model.named_modules() if isinstance(module, Low)}
