"""A trunk: streams (and earlier trunks) joined along the token axis, given positions, and run through blocks.

    raw tokens -> projection -> + position -> [class, registers, stream 1, stream 2 …] -> blocks -> norm

Open point of early fusion, settled here: streams in one trunk share a coordinate axis exactly when they name the same
axis. The trunk's coordinates have one column per distinct name; a stream stands at 0 on the axes it does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from sevenfold.assembly.block import Block, block_of
from sevenfold.assembly.mask import MaskConfig, check_blocks, mask_of
from sevenfold.assembly.pieces import (
    bridge,
    check_reach,
    joined,
    longest,
    moved,
    placed,
    projection_of,
    streams_in,
    trunk_axes,
)
from sevenfold.assembly.pool import extras_of
from sevenfold.blocks.normalization import Norm
from sevenfold.blocks.position import Position
from sevenfold.blocks.projection import Projection
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.modules import ModuleDict, ModuleList
from sevenfold.core.types import Batch, Bias, Hidden, Mask, Stream, take
from sevenfold.modality import Modality


class Trunk(nn.Module):
    """Batch (and the Hidden of earlier trunks) → Hidden."""

    class Config(part.Config):
        inputs: tuple[str, ...] = Field(min_length=1)
        """Streams and earlier trunks, joined along the token axis in this order."""
        cross_attends: str | None = None
        """An earlier trunk that every block reads by cross-attention."""
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
        self._columns = {
            name: [
                self.axes.index(axis) for axis in (streams[name].axis_names if name in streams else earlier[name].axes)
            ]
            for name in config.inputs
        }
        if config.index:
            self.axes = ("index",)
        self.embeds: ModuleDict[Projection | nn.Identity] = ModuleDict()
        for name in config.inputs:
            if name in streams:
                modality = streams[name]
                size = modality.tokenizer.size or modality.tokenizer.features
                embed: Projection = projection_of(name, modality).build(size, width)
                vectors = modality.tokenizer.vectors()
                if vectors is not None:
                    embed.start_from(torch.from_numpy(vectors))
                self.embeds[name] = embed
            else:
                self.embeds[name] = bridge(earlier[name].config.width, width)
        self.position: Position = config.position.build(width, len(self.axes))
        extra = int(config.class_token) + config.registers
        self.tokens = nn.Parameter(torch.randn(extra, width) * 0.02) if extra else None
        self.marks = (
            nn.ParameterDict({name: nn.Parameter(torch.randn(width) * 0.02) for name in config.inputs})
            if config.stream_embedding
            else None
        )
        self.memory_width = earlier[config.cross_attends].config.width if config.cross_attends else None
        self.blocks: ModuleList[Block] = ModuleList(
            block_of(block, width, index, config.depth, self.memory_width) for index, block in enumerate(config.blocks)
        )
        norm: Norm.Config = (config.blocks or [Block.Config()])[-1].norm
        self.input_norm = norm.build(width) if config.input_norm else None
        self.norm = norm.build(width) if config.final_norm else None
        self._scale_outputs()
        self.longest = longest(config, streams, earlier)
        check_blocks(config, self.blocks)
        self._around(Hidden(torch.zeros(1, 1, width), torch.zeros(1, 1, len(self.axes))), None)  # may refuse too
        check_reach(config, self.position, streams, self.longest)
        if config.frozen:
            self.requires_grad_(False)

    @torch.no_grad()
    def _scale_outputs(self) -> None:
        branches = sum(len(block.outputs()) for block in self.blocks)
        for block in self.blocks:
            for out in block.outputs():
                out.weight.mul_(branches**-0.5)

    def train(self, mode: bool = True) -> Trunk:
        return super().train(mode and not self.config.frozen)

    # Embedding
    def embed(self, name: str, given: Stream | Hidden, project: bool = True) -> Hidden:
        """One input, embedded and placed: x [b n width], coords with one column per axis of the trunk.

        `project=False`: its vectors have the trunk's width already (mask tokens, prompts). The class and register
        tokens of an earlier trunk stand nowhere: no position is added to them.
        """
        x = given.x if isinstance(given, Hidden) else given.values
        x = self.embeds[name](x) if project else x
        if self.marks is not None:
            x = x + self.marks[name]
        coords = given.coords
        if coords is None:
            coords = torch.zeros(*x.shape[:2], 0, device=x.device)
        if not self.config.index:
            coords = placed(coords, self._columns[name], len(self.axes))
            added = self.position.embed(coords)
            if added is not None:
                placeless = extras_of(given) if isinstance(given, Hidden) else 0
                x = x + F.pad(added[:, placeless:], (0, 0, placeless, 0)).to(x.dtype)
        return Hidden(x, coords, given.valid, given.segments, {name: (0, x.shape[1])}, frames=given.frames)

    def extras(self, rows: int, like: Hidden) -> list[Hidden]:
        """The class and register tokens, for `rows` rows."""
        if self.tokens is None:
            return []
        x = self.tokens.to(like.x.dtype).expand(rows, -1, -1)
        coords = None if like.coords is None else like.coords.new_zeros(rows, x.shape[1], like.coords.shape[-1])
        first = int(self.config.class_token)
        return [Hidden(x, coords, spans={"class": (0, first), "registers": (first, x.shape[1])})]

    def join(self, pieces: Sequence[Hidden], extras: bool = True) -> Hidden:
        """Pieces from `embed`, joined along the token axis behind the class and register tokens."""
        pieces = [*(self.extras(len(pieces[0].x), pieces[0]) if extras else []), *pieces]
        return joined(pieces, coords=not self.config.index)

    def _finish(self, hidden: Hidden, before: int | Tensor = 0) -> Hidden:
        """Positions of numbered tokens, the input norm and dropout."""
        x = hidden.x
        if self.config.index:
            n = x.shape[1]
            if hidden.valid is None:
                place = torch.arange(n, device=x.device).expand(len(x), n)
            else:
                place = (hidden.valid.long().cumsum(1) - 1).clamp(min=0)
            coords = (place + before).unsqueeze(-1)
            hidden = hidden._replace(coords=coords)
            added = self.position.embed(coords)
            x = x if added is None else x + added.to(x.dtype)
        if self.input_norm is not None:
            x = self.input_norm(x)
        return hidden._replace(x=F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x)

    # Running
    def forward(
        self, batch: Batch, earlier: Mapping[str, Hidden] | None = None, order: Sequence[str] | None = None
    ) -> Hidden:
        """Embed the inputs that are there (in `order`, if given) and run the blocks."""
        earlier = earlier or {}
        names = [name for name in (order or self.config.inputs) if name in batch or name in earlier]
        pieces = [self.embed(name, batch[name] if name in batch else earlier[name]) for name in names]
        memory = earlier[self.config.cross_attends] if self.config.cross_attends else None
        return self.mix(self.join(pieces), memory)

    def mix(self, hidden: Hidden, memory: Hidden | None = None) -> Hidden:
        """Joined tokens through the blocks and the final norm.

        Padding between streams is moved to the end of a row first: neighbours are neighbours whatever was padded.
        """
        hidden = self._finish(hidden)
        order = None
        if hidden.valid is not None and len(streams_in(hidden)) > 1:
            order = (~hidden.valid).byte().argsort(dim=1, stable=True)
        inner = self._around(hidden if order is None else moved(hidden, order), memory)
        mask, x = mask_of(self.config.mask, hidden), inner.x
        if self.blocks:
            inner = inner._replace(x=self.blocks[0].residuals[0].enter(x))
            for block in self.blocks:
                inner = block(inner, mask)
            x = self.blocks[-1].residuals[-1].leave(inner.x)
        if self.norm is not None:
            x = self.norm(x, hidden.condition, hidden.valid)
        return hidden._replace(x=x if order is None else take(x, order.argsort(1)))

    def _around(self, hidden: Hidden, memory: Hidden | None) -> Hidden:
        """What mixers need beside the tokens: rotations, the bias of the position, the memory (padding if it is absent)."""
        angles = {}
        for width in dict.fromkeys(block.mixer.rotated for block in self.blocks):
            if width is not None and hidden.coords is not None:
                turned = self.position.angles(hidden.coords, width)
                if turned is not None:
                    angles[width] = turned
        bias = cast(Bias, self.position.bias) if self.position.biased else None
        if memory is None and self.memory_width is not None:
            x = hidden.x.new_zeros(len(hidden.x), 1, self.memory_width)
            memory = Hidden(x, valid=torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device))
        return hidden._replace(angles=angles or None, bias=bias, memory=memory)

    # Generation
    def start(self, rows: int, length: int) -> TrunkState:
        """The state before any token, for at most `length` tokens (class and register tokens included)."""
        if not self.config.mask.causal:
            raise ConfigError("this trunk is not causal, so it cannot continue a sequence: set mask.causal")
        like = next(self.parameters())
        return TrunkState([block.start(rows, length, like) for block in self.blocks], 0)

    def step(
        self, hidden: Hidden, state: TrunkState, memory: Hidden | None = None, prefix: Tensor | None = None
    ) -> tuple[Hidden, TrunkState]:
        """The next tokens (from `embed`, joined, padding in front of them) after `state` → (Hidden, the new state).

        `prefix` [b]: that many places of the first step see each other in both directions (mask.prefix).
        """
        mask = Mask(self.config.mask.causal, self.config.mask.window, prefix)
        seen = hidden.x.shape[1] if hidden.valid is None else hidden.valid.long().sum(1, keepdim=True)
        hidden = self._around(self._finish(hidden, state.used), memory)
        after = []
        x = hidden.x
        if self.blocks:
            hidden = hidden._replace(x=self.blocks[0].residuals[0].enter(x))
            for block, block_state in zip(self.blocks, state.blocks):
                hidden, new = block.step(hidden, block_state, mask)
                after.append(new)
            x = self.blocks[-1].residuals[-1].leave(hidden.x)
        if self.norm is not None:
            x = self.norm(x, hidden.condition, hidden.valid)
        return hidden._replace(x=x, angles=None, bias=None, memory=None), TrunkState(after, state.used + seen)


class TrunkState:
    """What a trunk remembers between steps: the state of each block, and how many tokens each row has seen."""

    def __init__(self, blocks: list[Any], used: int | Tensor):
        self.blocks, self.used = blocks, used
