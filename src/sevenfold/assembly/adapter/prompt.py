"""Prompt tuning: trainable tokens in front of what a trunk reads.

    [P; class, registers; x_1 … x_n] -> blocks -> the tokens of P are taken out again            P [p d] ~ N(0, std^2)

Lester 2021, arXiv:2104.08691 section 2; for pictures Jia 2022 (VPT, shallow), arXiv:2203.12119 section 3.1. They stand nowhere
(no position is added, numbers of places do not move), are read by all tokens, and are in no output: pools, heads and
trunks behind see what they saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import nn

from sevenfold.assembly.adapter import Adapter
from sevenfold.core.errors import ConfigError


class Prompt(Adapter):
    class Config(Adapter.Config):
        tokens: int = Field(8, ge=0, le=4096)
        """How many, per trunk; 0 leaves the model as it is."""
        std: float = Field(0.02, gt=0)
        """Standard deviation of their first values."""

    variants = ({"tokens": 2, "std": 0.5}, {"tokens": 1})

    def put(self, model: Any, trunks: Mapping[str, Any]) -> None:
        for name, trunk in trunks.items():
            if not trunk.config.inputs:
                raise ConfigError(f"adapter: trunk {name!r} is of latents alone: it has nothing to stand in front of")
            if trunk.grid is not None or trunk.pair is not None:
                raise ConfigError(
                    f"adapter: trunk {name!r} mixes a whole grid or pairs of tokens, where none can be added: choose lora"
                )
            if self.config.tokens:
                like = next(trunk.parameters())
                shape = self.config.tokens, trunk.config.width
                trunk.prompts = nn.Parameter(torch.empty(shape, device=like.device, dtype=like.dtype))
                nn.init.normal_(trunk.prompts, 0.0, self.config.std)

    def idle(self, model: Any) -> list[str]:
        given = {name: trunk.prompts for name, trunk in model.trunks.items() if trunk.prompts is not None}
        return [f"trunks.{name}.prompts" for name, p in given.items() if p.grad is None or not bool(p.grad.any())]
