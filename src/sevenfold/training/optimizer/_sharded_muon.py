"""Muon for matrices of which each process has only a part: a step is made of the whole matrix, and each takes its part of it.

    u <- momentum, as Muon has it, of each part;   M <- all-gather of u;   W <- (1 - lr decay) W - its part of lr scale U V^T,  M = U S V^T

What is orthogonalised is what one process alone would orthogonalise, so that any number of them learns the same. M is gathered for
one matrix at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sevenfold.core.cut import Cut
from sevenfold.core.ranks import own
from sevenfold.training.parallel.gradients import placed, whole

SIZE = "match_rms_adamw"
"""How torch's Muon scales its steps."""


class ShardedMuon(torch.optim.Optimizer):
    """Its state is that of torch's Muon, sharded as the parameters are; `cuts`: how tensor parallelism has cut a parameter, by its identity."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        cuts: Mapping[int, Cut | None],
        lr: float,
        momentum: float,
        weight_decay: float,
    ):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.cuts = cuts

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)

    def _step(self, parameter: Any, group: dict[str, Any]) -> None:
        state, cut = self.state[parameter], self.cuts[id(parameter)]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter.grad)
        kept = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
        change = _orthogonalised(whole(parameter.grad.lerp(kept, group["momentum"]), cut), group["lr"])
        here = own(parameter)
        here.mul_(1 - group["lr"] * group["weight_decay"]).add_(own(placed(parameter, change, cut)))


def _orthogonalised(update: torch.Tensor, lr: float) -> torch.Tensor:
    """What torch's Muon makes of a whole matrix, beside momentum and decay."""
    change = nn.Parameter(torch.zeros_like(update))
    change.grad = update
    torch.optim.Muon([change], lr=lr, momentum=0.0, weight_decay=0.0, nesterov=False, adjust_lr_fn=SIZE).step()
    return change.data
