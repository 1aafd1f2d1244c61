"""From a trunk's tokens to one vector per row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Hidden


def extras_of(hidden: Hidden) -> int:
    """How many class and register tokens stand in front."""
    spans = hidden.spans or {}
    return max(spans.get("class", (0, 0))[1], spans.get("registers", (0, 0))[1])


def mean(hidden: Hidden) -> Tensor:
    """The mean over valid tokens, class and register tokens left out."""
    start = extras_of(hidden)
    x = hidden.x[:, start:]
    if hidden.valid is None:
        return x.mean(1)
    weight = hidden.valid[:, start:, None].to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


def class_token(hidden: Hidden) -> Tensor:
    """The class token."""
    start, stop = (hidden.spans or {}).get("class", (0, 0))
    if start == stop:
        raise ConfigError("pool: this trunk has no class token: set class_token, or pool by mean")
    return hidden.x[:, start]


def last(hidden: Hidden) -> Tensor:
    """The last valid token."""
    if hidden.valid is None:
        return hidden.x[:, -1]
    place = torch.arange(hidden.x.shape[1], device=hidden.x.device)
    index = torch.where(hidden.valid, place, -1).amax(1).clamp(min=0)
    return hidden.x[torch.arange(len(index), device=index.device), index]


def class_mean(hidden: Hidden) -> Tensor:
    """The class token and the mean, side by side (DINOv2's classifier)."""
    return torch.cat([class_token(hidden), mean(hidden)], -1)


def quarters(hidden: Hidden) -> Tensor:
    """The means over the tokens of each quarter of a picture, side by side: upper left, upper right, lower left, lower right.

    Its middle is that of the coordinates of valid tokens; tokens on the middle line are in both halves. 0 for an empty quarter.
    """
    start, coords = extras_of(hidden), hidden.coords
    if coords is None or coords.shape[-1] != 2:
        raise ConfigError("pool: quarters are those of a picture: tokens with two coordinate axes")
    x, place = hidden.x[:, start:], coords[:, start:]
    here = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    here = here if hidden.valid is None else hidden.valid[:, start:]
    wide = place.double()
    low = wide.masked_fill(~here[..., None], torch.inf).amin(1, keepdim=True)
    high = wide.masked_fill(~here[..., None], -torch.inf).amax(1, keepdim=True)
    middle = (low + high) / 2
    halves = torch.stack([wide <= middle, wide >= middle])
    weight = (halves[:, None, ..., 0] & halves[None, :, ..., 1] & here).flatten(0, 1).to(x.dtype)
    sums = torch.einsum("qbn,bnd->bqd", weight, x)
    return (sums / weight.sum(-1).T[..., None].clamp(min=1)).flatten(1)


POOLS: dict[str, Callable[[Hidden], Tensor]] = {
    "mean": mean,
    "class": class_token,
    "last": last,
    "class_mean": class_mean,
    "quarters": quarters,
}
WIDER = {"class_mean": 2, "quarters": 4}
"""How many times the trunk's width a pooled vector has, where not once."""


def pool(hidden: Hidden, how: str) -> Tensor:
    """x [b n d] → [b d]; "none" leaves it."""
    return hidden.x if how == "none" else POOLS[how](hidden)
