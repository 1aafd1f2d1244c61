"""How one input enters a trunk, where that is not the way of all inputs.

    y <- connector(x);   y <- dropout(norm(y + mark + position));   [class token + its place, y]

ViLT, arXiv:2102.03334 eq. 1 (a norm and positions of the words alone, a class token of the picture); LLaVA,
arXiv:2304.08485 (a connector, and where the picture stands in the text).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.assembly.connector import Connector
from sevenfold.assembly.pieces import bridge, embedding_of, joined
from sevenfold.assembly.shared import Shared, shared
from sevenfold.assembly.splice import SpliceConfig
from sevenfold.blocks.normalization import Norm
from sevenfold.blocks.position import Position
from sevenfold.blocks.projection import Projection
from sevenfold.core import part
from sevenfold.core.errors import ConfigError, did_you_mean
from sevenfold.core.initial import Normal, Rule, Ruled
from sevenfold.core.modules import ModuleDict
from sevenfold.core.types import Hidden
from sevenfold.modality import Modality


class EntryConfig(part.Config):
    """How one input enters."""

    connector: Connector.Config | None = None
    """What takes an earlier trunk's vectors to this one's width; by default nothing at equal widths, else `linear`."""
    extras: bool = True
    """Whether the class and register tokens of an earlier trunk come along."""
    splice: SpliceConfig | None = None
    """Where it stands inside another input; by default inputs follow each other."""
    mark: bool = False
    """Add a trainable vector to its tokens."""
    position: Position.Config | None = None
    """A position of its own, over its own axes, added to its tokens beside what the trunk's position does."""
    norm: bool = False
    """Normalize its tokens before they meet the others."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of its tokens' channels dropped in training."""
    class_token: bool = False
    """A trainable token in front of it, in a trunk that is not causal."""


class Entry(Ruled):
    """Embedded tokens of one input → the same with what is added to them, behind its class token. `axes`: how many its
    coordinates have; `norm`: what the trunk normalizes with."""

    Config = EntryConfig

    def __init__(self, config: EntryConfig, width: int, axes: int, norm: Norm.Config):
        super().__init__()
        self.config, self.width = config, width
        self.token = nn.Parameter(torch.empty(width)) if config.class_token else None
        self.mark = nn.Parameter(torch.empty(width)) if config.mark else None
        self.position: Position | None = config.position.build(width, axes) if config.position else None
        self.norm: Norm | None = norm.build(width) if config.norm else None
        self.begin()

    def rules(self) -> dict[str, Rule]:
        return {name: Normal(0.02) for name in self.own_parameters()}

    @property
    def front(self) -> int:
        """How many tokens it puts in front."""
        return int(self.token is not None)

    def kept(self, tokens: int) -> int:
        """Numbers kept for the backward pass over `tokens` tokens, by formula."""
        given = tokens * self.width
        return (0 if self.norm is None else given + self.norm.kept(tokens)) + given * bool(self.config.dropout)

    def forward(self, hidden: Hidden) -> Hidden:
        """x [b n d], coords [b n axes] of its own → x [b front+n d]. A row without a valid token gets no class token."""
        x, place = hidden.x, None
        if self.mark is not None:
            x = x + self.mark
        if self.position is not None and hidden.coords is not None:
            added = self.position.embed(hidden.coords)
            x = x if added is None else x + added.to(x.dtype)
            place = self.position.class_row()
        if self.norm is not None:
            x = self.norm(x, None, hidden.valid)
        if self.token is not None:
            first = self.token if place is None else self.token + place
            hidden = joined([self._class(first, hidden, x), hidden._replace(x=x)])
            x = hidden.x
        return hidden._replace(x=F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x)

    def _class(self, first: Tensor, hidden: Hidden, x: Tensor) -> Hidden:
        coords = None if hidden.coords is None else hidden.coords.new_zeros(len(x), 1, hidden.coords.shape[-1])
        valid = None if hidden.valid is None else hidden.valid.any(1, keepdim=True)
        return Hidden(first.to(x.dtype).expand(len(x), 1, -1), coords, valid)


def ways_in(
    config: Any,
    streams: Mapping[str, Modality],
    earlier: Mapping[str, Any],
    axes: Mapping[str, Sequence[str]],
    norm: Norm.Config,
) -> tuple[ModuleDict[Projection | Shared | Connector | nn.Identity], ModuleDict[Entry]]:
    """Of each input of a trunk what takes its tokens to the trunk's width, and its entry, if it has one. `axes` are those
    of its coordinates."""
    check_entries(config, streams, earlier)
    embeds: ModuleDict[Projection | Shared | Connector | nn.Identity] = ModuleDict()
    entries: ModuleDict[Entry] = ModuleDict()
    for name in config.inputs:
        entry = config.entries.get(name, EntryConfig())
        if name in streams:
            own = shared(name, streams, config.width, earlier)
            embeds[name] = embedding_of(name, streams[name], config.width) if own is None else own
        else:
            embeds[name] = bridge(earlier[name].config.width, config.width, entry.connector)
        if name in config.entries:
            entries[name] = Entry(entry, config.width, len(axes[name]), norm)
    return embeds, entries


def check_entries(config: Any, streams: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    """ConfigError for entries of a trunk that name no input of it, or ask of one what it cannot give."""
    for name, entry in config.entries.items():
        if name not in config.inputs:
            raise ConfigError(f"entries: {name!r} is not an input{did_you_mean(name, config.inputs)}")
        if name in streams and (entry.connector is not None or not entry.extras):
            field = "extras" if entry.connector is None else "connector"
            raise ConfigError(f"entries.{name}.{field}: {name!r} is a stream, and this is for earlier trunks")
        if entry.class_token and config.mask.causal:
            raise ConfigError(f"entries.{name}.class_token: a causal trunk has one start: set the trunk's class_token")
    for name in config.inputs:
        if name in earlier and earlier[name].splice is not None:
            raise ConfigError(
                f"inputs: {name!r} has a splice, and its tokens cannot be joined again: read it by cross_attends"
            )
