"""How near tokens are to a random place, in the metric of a box of random shape."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TIE = 1e-3
"""What the mean over axes counts beside the largest: it settles which of a box's side are nearest."""


def distances(coords: Tensor, eligible: Tensor, aspect: float) -> Tensor:
    """[b n]: d_i = max_a |x_ia - z_a| / (e_a r_a), and a little of the mean over a; 0 or more, larger farther away.

    e  the extent of the eligible tokens of a row along each axis
    r  how much longer than the item's own shape the box is along each axis: log-uniform, the largest to the smallest at
       most `aspect`
    z  an eligible token's place, moved at random by up to half of the usual distance between two
    """
    b, n, c = coords.shape
    x = coords.double()
    low = x.masked_fill(~eligible[..., None], torch.inf).amin(1, keepdim=True)
    high = x.masked_fill(~eligible[..., None], -torch.inf).amax(1, keepdim=True)
    extent = (high - low).clamp(min=0)  # of a row without any: -inf, so 0
    number = eligible.sum(1).clamp(min=1)[:, None, None]
    x = (x - low.nan_to_num(posinf=0.0)) / torch.where(extent > 0, extent, 1.0)
    chance = torch.rand(b, 2 * c + 1, device=coords.device).double()
    place = (chance[:, :1] * eligible.sum(1, keepdim=True)).long()
    rank = eligible.long().cumsum(1) - 1
    index = ((rank == place) & eligible).long().argmax(1)
    centre = x[torch.arange(b, device=x.device), index][:, None]
    centre = centre + (chance[:, None, 1 : 1 + c] - 0.5) / number.double() ** (1 / c)
    ratio = (chance[:, None, 1 + c :] - 0.5) * math.log(aspect) if c > 1 else torch.zeros_like(centre)
    away = (x - centre).abs() / ratio.exp()
    return (away.amax(-1) + TIE * away.mean(-1)) / (1 + TIE)
