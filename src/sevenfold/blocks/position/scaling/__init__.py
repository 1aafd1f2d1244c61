"""Scalings of rotary frequencies: how a model trained at one length is used at a longer one.

The contract of this room: `frequencies(pairs, base)` → (the frequency of each pair, [pairs] float64; a factor on cos and
sin). No scaling is base^(-i/pairs) and 1. They depend on settings only, never on the tokens at hand, so keys that were
turned and cached stay right.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.core import part


class Scaling(part.Part):
    """A rule from the frequencies of training to those of use."""

    room = "scaling"

    class Config(part.Config):
        factor: float = Field(8.0, ge=1)
        """How many times longer than in training."""

    def __init__(self, config: Any):
        self.config = config

    def frequencies(self, pairs: int, base: float) -> tuple[Tensor, float]:
        raise NotImplementedError


def plain(pairs: int, base: float) -> Tensor:
    """base^(-i/pairs), [pairs] float64."""
    return base ** -(torch.arange(pairs, dtype=torch.float64) / pairs)
