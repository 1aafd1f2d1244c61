"""What `time` and `channel` share: tokens that have one value on an axis share one draw."""

from __future__ import annotations

import torch
from torch import Tensor

from sevenfold.objective.masker import Masker


class Slices(Masker):
    """Hides whole slices of an item: all tokens with one value on `axis`. The last slice is hidden in part, so that the
    number is exact."""

    axis: int
    """Which column of the coordinates, counted from the end if it is negative."""

    def scores(self, coords: Tensor, eligible: Tensor) -> Tensor:
        slices = numbered(coords[..., self.axis], eligible)
        return torch.rand(slices.shape, device=coords.device).gather(1, slices)


def numbered(values: Tensor, eligible: Tensor) -> Tensor:
    """Which of the different values of its row each token has, [b n], counted from 0 in their order. Tokens that are not
    eligible come after all others."""
    values = values.double().masked_fill(~eligible, torch.inf)
    order = values.argsort(dim=1, stable=True)
    sorted_values = values.gather(1, order)
    new = torch.zeros_like(order)
    new[:, 1:] = (sorted_values[:, 1:] != sorted_values[:, :-1]).long()
    return torch.zeros_like(order).scatter(1, order, new.cumsum(1))
