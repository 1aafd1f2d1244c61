"""Maskers: which tokens of an item are hidden, by where they stand and by chance.

The contract of this room. An objective says how many tokens of a row are hidden (its `ratio`), a masker which. All that it
looks at are coordinates, so each serves every modality that has as many axes as it needs.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from sevenfold.core import part


class Masker(part.Part):
    """coords [b n c], eligible [b n] bool → which are hidden, [b n] bool."""

    room = "masker"

    class Config(part.Config):
        pass

    axes: ClassVar[int] = 0
    """The fewest coordinate axes that it can be used with."""

    def __init__(self, config: Any):
        self.config = config

    def scores(self, coords: Tensor, eligible: Tensor) -> Tensor:
        """[b n] in 0…1: the tokens with the highest are hidden, as many as are wanted. Random draws are from torch's global
        generator and have the rows first: [b …]. Tokens that are not eligible (padding, special ones) may get anything, and
        must not matter to the others."""
        raise NotImplementedError

    def choose(self, coords: Tensor, eligible: Tensor, wanted: Tensor) -> Tensor:
        """[b n] bool: exactly min(wanted, eligible) tokens of each row. `wanted` [b]."""
        scores = self.scores(coords, eligible).masked_fill(~eligible, -1.0)
        rank = scores.argsort(dim=1, descending=True, stable=True).argsort(1)
        return (rank < wanted[:, None]) & eligible


def share(eligible: Tensor, ratio: float) -> Tensor:
    """[b]: how many tokens of each row a ratio of its eligible ones is: rounded, at least one of those that there are."""
    number = eligible.sum(1)
    return torch.minimum((number.double() * ratio).round().clamp(min=1).long(), number)


def all_eligible(coords: Tensor, valid: Tensor | None) -> Tensor:
    """[b n] bool: every token that is no padding."""
    return torch.ones(coords.shape[:2], dtype=torch.bool, device=coords.device) if valid is None else valid
