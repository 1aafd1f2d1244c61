"""Which token is predicted from which, where a causal trunk writes."""

from __future__ import annotations

import torch
from torch import Tensor

from sevenfold.assembly.pieces import preceding
from sevenfold.core.types import Hidden, take


def following(hidden: Hidden, name: str, values: Tensor) -> tuple[Tensor, Tensor]:
    """(x [b m d], targets [b m]) of one stream of a trunk: each of its ids (values [b n]) beside the token that is read before
    it; -100 where there is none. Padding and placeholders are neither, and no document predicts another's first token. m is
    n - 1 for a stream with nothing in front of it, otherwise n."""
    start, stop = (hidden.spans or {})[name]
    first = max(start - 1, 0)
    targets = values if start > 0 else values[:, 1:]
    x = hidden.x[:, first : stop - 1]
    before = hidden.segments[:, first : stop - 1] if hidden.segments is not None else None
    keep = torch.ones_like(targets, dtype=torch.bool)
    if hidden.valid is not None:
        place, known = preceding(hidden)
        place, keep = place[:, first + 1 : stop], (known & hidden.valid)[:, first + 1 : stop]
        x = take(hidden.x, place)
        before = None if hidden.segments is None else take(hidden.segments, place)
    if hidden.segments is not None:
        keep = keep & (hidden.segments[:, first + 1 : stop] == before)
    return x, torch.where(keep, targets, -100)
