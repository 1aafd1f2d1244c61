"""All tokens hidden but those of a regular lattice, coarse or fine as the ratio asks.

    s_i = sum_l D_l(x_i + o) 2^(-c l),   l = 1, 2 ... : bit l - 1 of each coordinate, o a random offset
    D = [b_1 ^ b_c, ..., b_(c-1) ^ b_c, b_c] as a whole number: opposite corners of a cell come one after the other

The order in which a Bayer matrix fills a picture (Bayer 1973), so what is seen is a lattice at any ratio: at 3/4 one patch
of each 2 x 2 (the grid sampling of He 2021 (MAE), arXiv:2111.06377 section 4.1 and figure 6), at 1/2 a chequerboard. Coordinates that
are no whole numbers (clouds) are counted in cells, about as many as there are tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sevenfold.objective.masker import Masker

BITS = 24
"""All that a score can hold."""


class Grid(Masker):
    axes = 1

    def scores(self, coords: Tensor, eligible: Tensor) -> Tensor:
        b, n, c = coords.shape
        x = cells(coords, eligible)
        levels = min(max(int(x.max()), 1).bit_length(), BITS // c) if x.numel() else 1
        shift = (torch.rand(b, 1, c, device=coords.device) * 2**levels).long()
        x, score = x + shift, torch.zeros(b, n, device=coords.device)
        for level in range(levels):
            bits = (x >> level) & 1
            last = bits[..., -1:]
            digits = torch.cat([bits[..., :-1] ^ last, last], -1)
            weights = 2 ** torch.arange(c - 1, -1, -1, device=coords.device)
            score = score + (digits * weights).sum(-1) * 2.0 ** (-c * (level + 1))
        return score


def cells(coords: Tensor, eligible: Tensor) -> Tensor:
    """[b n c] whole numbers from 0: the coordinates, or the cells that real ones fall into; 0 of tokens that are not eligible."""
    low = coords.double().masked_fill(~eligible[..., None], torch.inf).amin(1, keepdim=True).nan_to_num(posinf=0.0)
    x = (coords.double() - low).masked_fill(~eligible[..., None], 0.0)
    if coords.is_floating_point():
        side = eligible.sum(1).clamp(min=1).double()[:, None, None] ** (1 / coords.shape[-1])
        extent = x.amax(1, keepdim=True)
        x = x / torch.where(extent > 0, extent, 1.0) * (side.ceil() - 1)
    return x.round().long()
