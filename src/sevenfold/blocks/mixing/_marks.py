"""Where tokens stand in their documents: what mixers that look by place keep of padding and segments."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sevenfold.core.types import Hidden

NOWHERE = -(1 << 28)
"""The place of a key that stands nowhere."""


class Marks(NamedTuple):
    """Of each token [b n]: its place, its segment, the place where its document begins, and whether it is one."""

    place: Tensor
    segment: Tensor
    origin: Tensor
    valid: Tensor

    def each(self, change: Any) -> Marks:
        return Marks(*map(change, self))


def marked(hidden: Hidden, past: Marks | None = None, used: int = 0) -> Marks:
    """The marks of tokens that come after `used` others with marks `past`; of one row for all where nothing tells rows
    apart. A document begins where its segment does, or where padding ends."""
    n, device, rows = hidden.x.shape[1], hidden.x.device, len(hidden.x)
    if hidden.valid is None and hidden.segments is None and past is None:
        rows = 1
    place = torch.arange(used, used + n, device=device).expand(rows, n)
    zero = torch.zeros(rows, n, dtype=torch.long, device=device)
    segment = zero if hidden.segments is None else hidden.segments.long()
    valid = zero == 0 if hidden.valid is None else hidden.valid
    if past is None or used == 0:
        before = torch.full_like(segment[:, :1], NOWHERE), valid[:, :1] & False, zero[:, :1]
    else:
        before = past.segment[:, -1:], past.valid[:, -1:], past.origin[:, -1:]
    begins = segment != torch.cat([before[0], segment[:, :-1]], 1)
    begins = begins | (valid & ~torch.cat([before[1], valid[:, :-1]], 1))
    origin = torch.cat([before[2], torch.where(begins, place, -1)], 1).cummax(1).values[:, 1:]
    return Marks(place, segment, origin, valid)


def picked(x: Tensor, index: Tensor) -> Tensor:
    """x [b h n d] at index [b or 1 …] of tokens → [b h … d]."""
    flat = index.flatten(1).expand(len(x), -1)[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[-1])
    return x.gather(2, flat).unflatten(2, index.shape[1:])
