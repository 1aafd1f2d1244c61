"""Mixture of experts: each token goes through the few experts that a router chooses for it.

    p = softmax(x W_r)         y = sum over the k largest of g_e expert_e(x),    g_e = p_e / (their sum)
    balance:  E sum_e f_e P_e                    f_e share of the choices that fell on e, P_e mean of p_e over tokens
    router z: mean (log sum exp (x W_r))^2

No token is dropped and none waits. One expert (k = 1) keeps g = p, so that the router learns. Padding goes nowhere, and
counts nowhere. The balance is 1 where all experts get the same. It is of the tokens of one pass: splitting a batch
(`accumulate`) takes the balance of each piece, which is another loss than that of the whole.

Shazeer 2017, arXiv:1701.06538; balance: Fedus 2021, arXiv:2101.03961 eq. 4-6 (for k choices divided by k); renormalized
choices: Jiang 2024, arXiv:2401.04088 section 2.1; router z: Zoph 2022, arXiv:2202.08906 eq. 5. Switch, Mixtral, OLMoE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.nonlinearity import Nonlinearity
from sevenfold.blocks.projection import Projection
from sevenfold.blocks.projection.linear import Linear
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.modules import ModuleList
from sevenfold.core.types import wide


class MoE(Nonlinearity):
    class Config(Nonlinearity.Config):
        experts: int = Field(8, ge=1, le=4096)
        """How many experts."""
        active: int = Field(2, ge=1)
        """How many of them a token goes through."""
        expert: Nonlinearity.Config = part.default("swiglu")
        """What an expert is."""
        balance: float = Field(0.01, ge=0)
        """Weight of the balance in the loss."""
        router_z: float = Field(0.0, ge=0)
        """Weight of the router z-loss."""

    variants = ({"experts": 4, "active": 1}, {"experts": 3, "active": 3, "expert": {"kind": "gelu"}, "router_z": 0.001})

    def __init__(self, config: Any, width: int, project: Callable[[int, int], Projection] | None = None):
        nn.Module.__init__(self)
        if config.active > config.experts:
            raise ConfigError(f"nonlinearity.active: {config.active} of {config.experts} experts")
        if config.expand is not None or config.inner is not None:
            raise ConfigError("nonlinearity: expand and inner are the expert's: nonlinearity.expert.inner")
        self.config, self.width = config, width
        self.router = Linear.Config().build(width, config.experts)
        self.experts: ModuleList[Nonlinearity] = ModuleList(
            config.expert.build(width, project) for _ in range(config.experts)
        )

    def outputs(self) -> list[Projection]:
        return [out for expert in self.experts for out in expert.outputs()]

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        flat = x.reshape(-1, self.width)
        with torch.autocast(x.device.type, enabled=False):
            logits = self.router(wide(flat))
        shares = logits.softmax(-1)
        weights, chosen = shares.topk(self.config.active, -1)
        if self.config.active > 1:
            weights = weights / weights.sum(-1, keepdim=True)
        live = torch.ones_like(chosen[:, 0], dtype=torch.bool) if valid is None else valid.reshape(-1)
        sent = (chosen[..., None] == torch.arange(len(self.experts), device=x.device)) & live[:, None, None]
        y = torch.zeros_like(wide(flat))
        for number, expert in enumerate(self.experts):
            rows, place = sent[..., number].nonzero(as_tuple=True)
            y = y.index_add(0, rows, (wide(expert(flat[rows])) * weights[rows, place, None]).to(y.dtype))
        if self.training and torch.is_grad_enabled():
            self._weigh(logits, shares, sent, live)
        return y.to(x.dtype).view_as(x)

    def _weigh(self, logits: Tensor, shares: Tensor, sent: Tensor, live: Tensor) -> None:
        """Add this pass to `penalty`: tokens × (balance and router z), and tokens."""
        real = live.to(shares.dtype)
        tokens = real.sum()
        some = tokens.clamp(min=1)
        fell = sent.sum((0, 1)) / (some * self.config.active)
        balance = len(self.experts) * (fell * (shares * real[:, None]).sum(0) / some).sum()
        router_z = (logits.logsumexp(-1).square() * real).sum() / some
        penalty = self.config.balance * balance + self.config.router_z * router_z
        both = torch.stack([penalty * tokens, tokens])
        self.penalty = both if self.penalty is None else self.penalty + both

    def flops(self, tokens: int) -> int:
        """Of the router, and of the experts that tokens are sent to."""
        return 2 * tokens * self.width * self.config.experts + self.experts[0].flops(tokens * self.config.active)

    def scratch(self, tokens: int) -> int:
        return self.experts[0].scratch(tokens * self.config.active)

    def kept(self, tokens: int) -> int:
        """Of each choice: its token, what its expert keeps and gives, its weight and number; and the router's shares."""
        each = 2 * self.width + 8
        router = self.config.experts * (2 if self.config.router_z else 1)
        return tokens * (self.config.active * each + router) + self.experts[0].kept(tokens * self.config.active)
