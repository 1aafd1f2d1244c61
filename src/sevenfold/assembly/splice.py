"""Splicing: one input of a trunk stands inside another, where that one has its placeholder.

    text  a b <place> c d,   picture  p q r     ->     a b p q r c d

The placeholder itself is left out. Where there are several, the others are left out as well (files that say it once for
each token of the picture); where there is none, what is spliced in stands before the text. LLaVA, arXiv:2304.08485.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Hidden
from sevenfold.modality import Modality

BEFORE, GUEST, AFTER = 0, 1, 2
"""Places (see Hidden): of the text up to its placeholder, of what is spliced in, of the text behind."""


class SpliceConfig(part.Config):
    """Where an input stands in another one."""

    stream: str
    """The stream of ids in which it stands, another input of the trunk."""
    id: int | None = Field(None, ge=0)
    """The id of the placeholder; by default that of the stream's tokenizer (its special token `place`)."""


class Splice:
    """The one splice of a trunk, of the input `guest` into the stream `host`."""

    def __init__(self, guest: str, config: SpliceConfig, inputs: tuple[str, ...], host: Modality):
        self.guest, self.host, self.inputs = guest, config.stream, inputs
        id = host.tokenizer.specials.get("place") if config.id is None else config.id
        if host.tokenizer.size is None or id is None:
            raise ConfigError(
                f"entries.{guest}.splice: the {host.tokenizer.kind} tokenizer of {config.stream!r} has no placeholder: "
                "choose one with places, or give splice.id"
            )
        if id >= host.tokenizer.size:
            raise ConfigError(
                f"entries.{guest}.splice.id: {id} is none of the {host.tokenizer.size} ids of {self.host!r}"
            )
        self.id = id

    def __call__(self, name: str, piece: Hidden, values: Tensor) -> Hidden:
        """One input, told when its tokens are read; `values` [b n] are the host's ids."""
        if name == self.host and not values.is_floating_point():
            gap = values == self.id
            if not torch.compiler.is_compiling() and not gap.any():  # words that are drawn one by one, say
                return piece._replace(places=torch.full_like(values, AFTER))
            behind = (gap.cumsum(1) > 0) | ~gap.any(1, keepdim=True)
            valid = ~gap if piece.valid is None else piece.valid & ~gap
            return piece._replace(valid=valid, places=torch.where(behind, AFTER, BEFORE))
        place = GUEST
        if name != self.guest:
            place = AFTER if self.inputs.index(name) > self.inputs.index(self.host) else BEFORE
        return piece._replace(places=torch.full(piece.x.shape[:2], place, device=piece.x.device))


def splice_of(config: Any, streams: Mapping[str, Modality]) -> Splice | None:
    """The splice that a trunk's entries name. ConfigError for two, or one that cannot be."""
    named = [(name, entry.splice) for name, entry in config.entries.items() if entry.splice is not None]
    if not named:
        return None
    if len(named) > 1:
        raise ConfigError(
            f"entries: {named[0][0]!r} and {named[1][0]!r} are both spliced in, and a trunk has one splice"
        )
    guest, splice = named[0]
    if splice.stream == guest or splice.stream not in config.inputs or splice.stream not in streams:
        raise ConfigError(f"entries.{guest}.splice: {splice.stream!r} is not another stream among the inputs")
    if config.mask.prefix:
        raise ConfigError(f"entries.{guest}.splice: does not go with mask.prefix: leave one out")
    return Splice(guest, splice, config.inputs, streams[splice.stream])
