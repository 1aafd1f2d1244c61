"""Who may look at whom in a trunk: what a recipe says of it, what that means for tokens, and what cannot work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import Field

from sevenfold.assembly.block import Block
from sevenfold.assembly.pieces import streams_in
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Hidden, Mask


class MaskConfig(part.Config):
    """Who may look at whom."""

    causal: bool = False
    """Tokens see only themselves and earlier ones."""
    window: int | None = Field(None, ge=1)
    """Tokens see only those less than this many places away."""
    prefix: bool = False
    """The tokens of the first stream see each other in both directions even when causal (prefix language model)."""


def mask_of(config: MaskConfig, hidden: Hidden) -> Mask:
    """The mask for joined tokens."""
    prefix = None
    if config.prefix:
        names = streams_in(hidden)
        stop = (hidden.spans or {})[names[0]][1] if len(names) > 1 else 0
        prefix = torch.full((len(hidden.x),), stop, device=hidden.x.device)
        if hidden.valid is not None:
            prefix = hidden.valid[:, :stop].sum(1)
    return Mask(config.causal, config.window, prefix)


def check_blocks(config: Any, blocks: Iterable[Block]) -> None:
    """ConfigError for blocks that cannot work under a trunk's mask, or read a memory that it does not name."""
    blocks = list(blocks)
    streams = {residual.streams for block in blocks for residual in block.residuals}
    if len(streams) > 1:
        raise ConfigError(
            f"block: residuals of {sorted(streams)} streams do not stand in one trunk: give all blocks one"
        )
    mask = config.mask
    asked = {name for name, given in (("window", mask.window), ("prefix", mask.prefix)) if given}
    for index, block in enumerate(blocks):
        for mixer in block.mixers:
            what = f"block {index}: {mixer.kind!r}"
            if not mask.causal and not mixer.bidirectional:
                raise ConfigError(f"{what} only works forward: set mask.causal")
            if mask.causal and not mixer.continues:
                raise ConfigError(f"{what} does not work forward only: leave mask.causal out")
            if "streams" in mixer.needs and len(config.inputs) < 2:
                raise ConfigError(f"{what} lets streams look at each other: join two or more in inputs")
            if mixer.crosses and config.cross_attends is None:
                raise ConfigError(f"{what} reads another trunk: set cross_attends")
            for name in sorted(asked - mixer.heeds):
                if not mixer.crosses:
                    raise ConfigError(f"{what} does not heed mask.{name}: leave it out")
    if not config.inputs and (mask.causal or mask.prefix or mask.window or config.index):
        raise ConfigError("a trunk of latents (inputs: []) has no order: leave mask and index out")


def check_embeds(config: Any, embeds: Mapping[str, Any]) -> None:
    """ConfigError for tokens that are embedded by what stands behind them, where they may not look there."""
    for name, embed in embeds.items():
        if config.mask.causal and getattr(embed, "reads_row", False):
            raise ConfigError(f"streams.{name}.projection: {embed.kind!r} reads the whole row: leave mask.causal out")
