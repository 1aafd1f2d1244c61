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


POOLS: dict[str, Callable[[Hidden], Tensor]] = {
    "mean": mean,
    "class": class_token,
    "last": last,
    "class_mean": class_mean,
}
WIDER = {"class_mean": 2}
"""How many times the trunk's width a pooled vector has, where not once."""


def pool(hidden: Hidden, how: str) -> Tensor:
    """x [b n d] → [b d]; "none" leaves it."""
    return hidden.x if how == "none" else POOLS[how](hidden)
