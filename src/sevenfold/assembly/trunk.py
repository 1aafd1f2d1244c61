"""A trunk: streams (and earlier trunks) joined along the token axis, given positions, and run through blocks.

    raw tokens -> projection -> + position -> [class, registers, stream 1, stream 2 …] -> blocks -> norm

Open point of early fusion, settled here: streams in one trunk share a coordinate axis exactly when they name the same
axis. The trunk's coordinates have one column per distinct name; a stream stands at 0 on the axes it does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sevenfold.assembly.block import Block, block_of
from sevenfold.assembly.condition import Condition
from sevenfold.assembly.entry import EntryConfig, ways_in
from sevenfold.assembly.mask import MaskConfig, check_blocks, check_embeds, mask_of
from sevenfold.assembly.pair import PairConfig, PairEmbed, check_needs, framed, grid_of, with_pair
from sevenfold.assembly.pieces import (
    body,
    check_reach,
    dropped_of,
    embedded,
    front_of,
    joined,
    longest,
    moved,
    numbered,
    pair_in_order,
    placed,
    reading_order,
    streams_in,
    trunk_axes,
    unprompted,
)
from sevenfold.assembly.pool import extras_of
from sevenfold.assembly.splice import splice_of
from sevenfold.assembly.spread import gathered, spread
from sevenfold.assembly.standing import own_positions, standing
from sevenfold.assembly.stepping import Stepping
from sevenfold.blocks.mixing import documents
from sevenfold.blocks.normalization import Norm
from sevenfold.blocks.position import Position
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Normal, Rule
from sevenfold.core.modules import ModuleList
from sevenfold.core.types import Batch, Hidden, Stream, take
from sevenfold.modality import Modality

again = partial(checkpoint, use_reentrant=False)
"""Calls a block, and calls it again in the backward pass, with the same random numbers."""


class Trunk(Stepping):
    """Batch (and the Hidden of earlier trunks) → Hidden."""

    class Config(part.Config):
        inputs: tuple[str, ...]
        """Streams and earlier trunks, joined along the token axis in this order. None (`[]`): its tokens are its registers
        alone, latents that read the trunk of cross_attends (a resampler)."""
        cross_attends: str | None = None
        """An earlier trunk that every block reads by cross-attention."""
        condition: str | None = None
        """A stream that adaptive norms and residuals read: the mean of its embedded tokens; it is not among the inputs."""
        condition_dropout: float = Field(0.0, ge=0, lt=1)
        """Share of rows whose condition is hidden in training, so that it can be guided (classifier-free)."""
        width: int = Field(256, ge=1, le=1 << 16)
        """Channels of a token."""
        depth: int = Field(4, ge=0, le=4096)
        """Blocks."""
        block: Block.Config | tuple[Block.Config, ...] = Block.Config()
        """One block, repeated; or a list of blocks, taken in turn."""
        position: Position.Config = part.default("rotary")
        """What the trunk knows of where tokens stand."""
        index: bool = False
        """Number the joined tokens 0, 1, 2 … (class and register tokens too) instead of using their own coordinates."""
        mask: MaskConfig = MaskConfig()
        """Who may look at whom."""
        class_token: bool = False
        """A trainable token in front, to read a sequence or a set out; under a causal mask it is the start token."""
        entries: dict[str, EntryConfig] = {}
        """How single inputs enter, where not in the way of all: connectors, class tokens of their own, splicing."""
        registers: int = Field(0, ge=0, le=1024)
        """Trainable tokens that attention may use as scratch; dropped from the output of pooling."""
        stream_embedding: bool = False
        """Add a trainable vector per input, so that tokens tell which stream they are from."""
        input_norm: bool = False
        """Normalize the embedded tokens before the first block (BERT)."""
        final_norm: bool = True
        """Normalize after the last block."""
        dropout: float = Field(0.0, ge=0, lt=1)
        """Share of the embedded tokens' channels dropped in training."""
        frozen: bool = False
        """Never trained."""
        pair: PairConfig | None = None
        """A pair representation beside the tokens, which blocks read and update; null for none."""

        @field_validator("block", mode="before")
        @classmethod
        def _block(cls, value: Any) -> Any:
            if isinstance(value, list | tuple):
                if not value:
                    raise ValueError("an empty list of blocks")
                return tuple(
                    item if isinstance(item, Block.Config) else Block.Config.model_validate(item) for item in value
                )
            return value if isinstance(value, Block.Config) else Block.Config.model_validate(value)

        @property
        def blocks(self) -> list[Block.Config]:
            """The config of each block, bottom to top."""
            pattern = self.block if isinstance(self.block, tuple) else (self.block,)
            cross = None
            if self.cross_attends:
                cross = "cross"
            return [
                pattern[index % len(pattern)].replace(cross=pattern[index % len(pattern)].cross or cross)
                for index in range(self.depth)
            ]

    def __init__(self, config: Any, streams: Mapping[str, Modality], earlier: Mapping[str, Trunk]):
        super().__init__()
        self.config, width = config, config.width
        self.axes: tuple[str, ...] = trunk_axes(config, streams, {name: trunk.axes for name, trunk in earlier.items()})
        own = {name: streams[name].axis_names if name in streams else earlier[name].axes for name in config.inputs}
        self._columns = {name: [self.axes.index(axis) for axis in axes] for name, axes in own.items()}
        if config.index:
            self.axes = ("index",)
        norm: Norm.Config = (config.blocks or [Block.Config()])[-1].last_norm
        self.embeds, self.entries = ways_in(config, streams, earlier, own, norm)
        self.fronts = {name: front_of(config, name) for name in config.inputs}
        self.dropped = {name: dropped_of(config, name, earlier) for name in config.inputs}
        self.splice = splice_of(config, streams)
        extra = int(config.class_token) + config.registers
        self.tokens = nn.Parameter(torch.empty(extra, width)) if extra else None
        self.recompute = False  # whether blocks are computed again in the backward pass (sevenfold.training.recomputed)
        self.prompts: nn.Parameter | None = None  # put there by an adapter (sevenfold.assembly.adapter.prompt)
        self.marks = (
            nn.ParameterDict({name: nn.Parameter(torch.empty(width)) for name in config.inputs})
            if config.stream_embedding
            else None
        )
        self.conditioner: Condition | None = None
        if config.condition is not None:
            self.conditioner = Condition(config.condition, streams[config.condition], width, config.condition_dropout)
        self.begin()
        self.memory_width = earlier[config.cross_attends].config.width if config.cross_attends else None
        condition = None if config.condition is None else width
        self.pair = PairEmbed(config.pair, width) if config.pair else None
        pair = config.pair.width if config.pair else None
        self.blocks: ModuleList[Block] = ModuleList(
            block_of(block, width, index, config.depth, self.memory_width, condition, pair)
            for index, block in enumerate(config.blocks)
        )
        heads = max((mixer.heads or 0 for block in self.blocks for mixer in block.mixers), default=0)
        self.position: Position = config.position.build(width, len(self.axes), heads or None)
        self.block_positions = own_positions(self.blocks, width, len(self.axes), heads or None)
        if self.position.class_row() is not None and not config.class_token:
            raise ConfigError("position: has a row for a class token, which this trunk has not: set class_token")
        self.input_norm = norm.build(width, condition) if config.input_norm else None
        self.norm = norm.build(width, condition) if config.final_norm else None
        self.longest = longest(config, streams, earlier)
        check_blocks(config, self.blocks)
        check_embeds(config, dict(self.embeds.items()))
        self.grid, self.framed = grid_of(config, self.blocks, streams, earlier), framed(config, streams, earlier)
        check_needs(config, self.blocks, self.grid, self.framed)
        self._around(Hidden(torch.zeros(1, 1, width), torch.zeros(1, 1, len(self.axes))), None)  # may refuse too
        check_reach(config, self.position, streams, self.longest)
        if config.frozen:
            self.requires_grad_(False)

    def rules(self) -> dict[str, Rule]:
        """Of the class and register tokens, and the marks of streams. Latents begin as large as vectors are."""
        own = [name for name in self.own_parameters() if name.partition(".")[0] in ("tokens", "marks", "prompts")]
        return {name: Normal(0.02 if self.config.inputs else 1.0) for name in own}

    def train(self, mode: bool = True) -> Trunk:
        return super().train(mode and not self.config.frozen)

    # Embedding
    def embed(self, name: str, given: Stream | Hidden, project: bool = True) -> Hidden:
        """One input, embedded and placed: x [b n width], coords with one column per axis of the trunk.

        `project=False`: its vectors have the trunk's width already (mask tokens, prompts). The class and register
        tokens of an earlier trunk stand nowhere: no position is added to them.
        """
        if isinstance(given, Stream):
            given = Hidden(given.values, given.coords, given.valid, given.segments, frames=given.frames)
        if self.dropped[name]:
            given = body(given)
        x = embedded(self.embeds[name], given.x, given.valid, given.segments) if project else given.x
        coords = torch.zeros(*x.shape[:2], 0, device=x.device) if given.coords is None else given.coords
        piece = Hidden(x, coords, given.valid, given.segments, frames=given.frames)
        if self.splice is not None:
            piece = self.splice(name, piece, given.x)
        if name in self.entries:
            piece = self.entries[name](piece)
        x, front = piece.x, self.fronts[name]
        if self.marks is not None:
            x = x + self.marks[name]
        if not self.config.index:
            coords = placed(cast(Tensor, piece.coords), self._columns[name], len(self.axes))
            piece, added = piece._replace(coords=coords), self.position.embed(coords)
            if added is not None:
                placeless = extras_of(given) + front
                added = F.pad(added[:, placeless:], (0, 0, placeless, 0)) if placeless else added
                x = x + added.to(x.dtype)
        streams = None
        if len(self.config.inputs) > 1:
            streams = torch.full(x.shape[:2], self.config.inputs.index(name), device=x.device)
        return piece._replace(x=x, spans={name: (front, x.shape[1])}, streams=streams)

    def extras(self, rows: int, like: Hidden) -> list[Hidden]:
        """The prompts of an adapter, the class and register tokens, for `rows` rows."""
        front = [] if self.prompts is None else [self._placeless(self.prompts, rows, like)]
        front = [piece._replace(spans={"prompts": (0, piece.x.shape[1])}) for piece in front]
        if self.tokens is None:
            return front
        x: Tensor = self.tokens
        first, row = int(self.config.class_token), self.position.class_row()
        if row is not None and first:
            x = x + F.pad(row[None], (0, 0, 0, len(x) - 1))
        spans = {"class": (0, first), "registers": (first, len(x))}
        return [*front, self._placeless(x, rows, like)._replace(spans=spans)]

    @staticmethod
    def _placeless(x: Tensor, rows: int, like: Hidden) -> Hidden:
        """Tokens [k d] that stand nowhere, in front of each row."""
        x = x.to(like.x.dtype).expand(rows, -1, -1)
        coords = None if like.coords is None else like.coords.new_zeros(rows, x.shape[1], like.coords.shape[-1])
        return Hidden(x, coords)

    def latents(self, memory: Hidden) -> Hidden:
        """The tokens of a trunk without inputs, as many rows as what it reads; they stand nowhere."""
        rows, x = len(memory.x), cast(Tensor, self.tokens)
        coords = torch.zeros(rows, len(x), 0, device=x.device)
        return Hidden(x.to(memory.x.dtype).repeat(rows, 1, 1), coords, spans={"latents": (0, len(x))})

    def join(self, pieces: Sequence[Hidden], extras: bool = True) -> Hidden:
        """Pieces from `embed`, joined along the token axis behind the class and register tokens."""
        pieces = [*(self.extras(len(pieces[0].x), pieces[0]) if extras else []), *pieces]
        return joined(pieces, coords=not self.config.index)

    def _finish(self, hidden: Hidden, before: int | Tensor = 0) -> Hidden:
        """Positions of numbered tokens, the input norm and dropout."""
        x = hidden.x
        if self.config.index:
            numbers = numbered(hidden)
            if self.prompts is not None and isinstance(before, int) and not before:
                numbers = (numbers - len(self.prompts)).clamp(min=0)  # prompts stand at 0, and count for nothing
            coords = (numbers + before).unsqueeze(-1)
            hidden = hidden._replace(coords=coords)
            added = self.position.embed(coords)
            x = x if added is None else x + added.to(x.dtype)
        if self.input_norm is not None:
            x = self.input_norm(x, hidden.condition, hidden.valid)
        dropped = self.config.dropout and self.training
        return hidden._replace(x=F.dropout(x, self.config.dropout) if dropped else x)

    # Running
    def forward(
        self, batch: Batch, earlier: Mapping[str, Hidden] | None = None, order: Sequence[str] | None = None
    ) -> Hidden:
        """Embed the inputs that are there (in `order`, if given) and run the blocks."""
        earlier = earlier or {}
        names = [name for name in (order or self.config.inputs) if name in batch or name in earlier]
        pieces = [self.embed(name, batch[name] if name in batch else earlier[name]) for name in names]
        memory = earlier.get(self.config.cross_attends) if self.config.cross_attends else None
        hidden = self.join(pieces) if self.config.inputs else self.latents(cast(Hidden, memory))
        return self.mix(hidden._replace(condition=self.condition(batch, len(hidden.x))), memory)

    def condition(self, batch: Batch, rows: int) -> Tensor | None:
        """What adaptive parts read, [rows width]: the mean of the condition's embedded tokens, a learned vector where a
        row has none. None for a trunk without a condition."""
        return None if self.conditioner is None else self.conditioner(batch, rows)

    def mix(self, hidden: Hidden, memory: Hidden | None = None) -> Hidden:
        """Joined tokens through the blocks and the final norm.

        What is spliced in is moved to its place first, and padding to the end of a row: neighbours are neighbours whatever
        was padded.
        """
        if self.conditioner is not None and hidden.condition is None:
            raise ConfigError(f"trunk: the condition {self.config.condition!r} was not handed on: see Trunk.condition")
        hidden = self._finish(hidden)
        order = None
        if hidden.places is not None or (hidden.valid is not None and len(streams_in(hidden)) > 1):
            order = reading_order(hidden)
        inner = self._around(hidden if order is None else moved(hidden, order), memory)
        inner = with_pair(self.pair, inner._replace(documents=documents(inner)), self.grid)
        mask, together = mask_of(self.config.mask, hidden), inner
        inner = spread(inner)
        x = inner.x
        if self.blocks:
            inner = inner._replace(x=self.blocks[0].residuals[0].enter(x))
            for block in self.blocks:
                inner = again(block, inner, mask) if self.recompute else block(inner, mask)
            x = self.blocks[-1].residuals[-1].leave(inner.x)
        if self.norm is not None:
            x = self.norm(x, inner.condition, inner.valid)
        x = gathered(x, together)
        if order is None:  # `carrying` comes last: PyTorch 2.11 compiles nothing that gives what `_replace` made
            return unprompted(hidden._replace(pair=inner.pair, grid=inner.grid).carrying(x))
        back = order.argsort(1)
        return unprompted(hidden._replace(pair=pair_in_order(inner.pair, back)).carrying(take(x, back)))

    def _around(self, hidden: Hidden, memory: Hidden | None) -> Hidden:
        """What mixers need beside the tokens: rotations, the bias of the position, the memory (padding if it is absent)."""
        if memory is None and self.memory_width is not None:
            x = hidden.x.new_zeros(len(hidden.x), 1, self.memory_width)
            memory = Hidden(x, valid=torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device))
        placed: dict[int | None, list[Block]] = {}
        for block in self.blocks:
            placed.setdefault(block.stands, []).append(block)
        angles, bias = standing(self.position, placed.get(None, ()), hidden)
        own = tuple(standing(one, placed[place], hidden) for place, one in enumerate(self.block_positions))
        return hidden._replace(angles=angles, bias=bias, memory=memory, elsewhere=own or None)

    def position_of(self, block: Block) -> Position:
        """The position that a block's mixers read: its own, or the trunk's."""
        return self.position if block.stands is None else self.block_positions[block.stands]
