"""One block: mix tokens, optionally look at an earlier trunk, transform each token; each in a residual, with a norm.

pre-norm (default)   x <- R(x, mix o norm);            x <- R(x, feed o norm)
post-norm            x <- norm(R(x, mix));             x <- norm(R(x, feed))          (BERT)
output norm          x <- R(x, norm o mix);            x <- R(x, norm o feed)         (OLMo 2, arXiv:2501.00656)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from sevenfold.assembly.pair import PairUpdates, fitted, updates_of
from sevenfold.blocks.mixing import Mixer
from sevenfold.blocks.mixing.cache import Cache
from sevenfold.blocks.nonlinearity import Nonlinearity
from sevenfold.blocks.normalization import Norm
from sevenfold.blocks.position import Position
from sevenfold.blocks.projection import Projection
from sevenfold.blocks.residual import Residual
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Ruled
from sevenfold.core.modules import ModuleList
from sevenfold.core.types import Hidden, Mask


class Block(Ruled):
    """Hidden → the stream after it, x [b n d]."""

    class Config(part.Config):
        mixer: Mixer.Config | None = part.default("attention")
        """How tokens learn of each other; null for none (they only read another trunk)."""
        cross: Mixer.Config | None = None
        """How tokens read the trunk named in cross_attends; by default `cross` where there is one."""
        nonlinearity: Nonlinearity.Config | None = part.default("gelu")
        """The feed-forward part; null for none."""
        norm: Norm.Config | tuple[Norm.Config, ...] = part.default("layer")
        """The normalization before each part (or after it: post_norm, output_norm); or a list, one per part, `none` among
        them."""
        residual: Residual.Config = part.default("add")
        """How each part's output joins the stream."""
        projection: Projection.Config = part.default("linear")
        """What the mixer and the feed-forward part are built of."""
        position: Position.Config | None = None
        """What its mixers know of where tokens stand, in place of the trunk's position (another rotary base, none)."""
        post_norm: bool = False
        """Normalize after each residual instead of before each part."""
        output_norm: bool = False
        """Normalize each part's output, before it joins the stream, instead of its input."""
        probe: bool = False
        """The cross mixer reads for the stream as it is, and what it gives takes the stream's place: no norm, no residual
        (attention pooling: a learned probe asks, and is not part of the answer)."""
        dropout: float = Field(0.0, ge=0, lt=1)
        """Share of each part's output dropped in training."""
        pair: tuple[Mixer.Config, ...] = ()
        """What updates the pair representation before the mixer reads it, in turn; the trunk needs a `pair`."""
        pair_nonlinearity: Nonlinearity.Config | None = None
        """The feed-forward part of the pair, after its other updates; null for none."""
        pair_residual: Residual.Config = part.default("add")
        """How each update joins the pair."""

        @field_validator("norm", mode="before")
        @classmethod
        def _norm(cls, value: Any) -> Any:
            if not isinstance(value, list | tuple):
                return value if isinstance(value, Norm.Config) else Norm.Config.model_validate(value)
            if not value:
                raise ValueError("an empty list of norms")
            return tuple(cls._norm({"kind": "layer", **item} if isinstance(item, dict) else item) for item in value)

        @property
        def last_norm(self) -> Norm.Config:
            """The norm of the last part, of which the trunk's own, its heads' and the pair's are made too."""
            return self.norm[-1] if isinstance(self.norm, tuple) else self.norm

        def norms(self, branches: int) -> tuple[Norm.Config, ...]:
            """The norm of each part."""
            if not isinstance(self.norm, tuple):
                return (self.norm,) * branches
            if len(self.norm) != branches:
                raise ConfigError(f"block.norm: a list of {len(self.norm)}, and the block has {branches} parts")
            return self.norm

    def __init__(
        self,
        config: Any,
        width: int,
        index: int = 0,
        depth: int = 1,
        condition: int | None = None,
        pair: int | None = None,
    ):
        super().__init__()
        self.config = config
        if config.projection.part.reads_ids or config.projection.part.reads_table:
            raise ConfigError(f"block.projection: {config.projection.kind!r} does not map vectors: choose linear")
        if config.post_norm and config.output_norm:
            raise ConfigError("post_norm and output_norm are two places for the same norm: choose one")
        project = config.projection.build
        self.mixer: Mixer | None = config.mixer.build(width, project) if config.mixer else None
        if self.mixer is not None and self.mixer.crosses:
            raise ConfigError(f"block.mixer: {self.mixer.kind!r} reads another trunk; it belongs in block.cross")
        if self.mixer is not None and self.mixer.pairs:
            raise ConfigError(f"block.mixer: {self.mixer.kind!r} updates a pair; it belongs in block.pair")
        self.cross: Mixer | None = config.cross.build(width, project) if config.cross else None
        if self.cross is not None and not self.cross.crosses:
            raise ConfigError(
                f"block.cross: {config.cross.kind!r} does not read another trunk; it belongs in block.mixer"
            )
        self.feed: Nonlinearity | None = config.nonlinearity.build(width, project) if config.nonlinearity else None
        self.bare = len(self.mixers) - 1 if config.probe else None
        """Which of its mixers stands in no residual."""
        branches = len(self.mixers) + (self.feed is not None) - config.probe
        if config.probe and (self.cross is None or not branches):
            raise ConfigError("block.probe: needs a cross mixer (cross_attends) and another part: set nonlinearity")
        if not branches:
            raise ConfigError("block: has neither a mixer nor a nonlinearity: it does nothing")
        self.norms: ModuleList[Norm] = ModuleList(norm.build(width, condition) for norm in config.norms(branches))
        self.residuals: ModuleList[Residual] = ModuleList(
            config.residual.build(width, index, depth, place, condition) for place in range(branches)
        )
        if config.probe and self.residuals[0].streams > 1:
            raise ConfigError(f"block.probe: {config.residual.kind!r} carries several streams: choose another residual")
        self.pair: PairUpdates | None = updates_of(config, pair, index, depth, project, condition)
        self.stands: int | None = None
        """Which position of `hidden.elsewhere` its mixers read; None: the trunk's."""

    @property
    def mixers(self) -> list[Mixer]:
        """What it mixes with, in turn: its mixer and its cross mixer, those that it has."""
        return [mixer for mixer in (self.mixer, self.cross) if mixer is not None]

    def outputs(self) -> list[list[Projection]]:
        """The last projections of each branch, which initialisation scales down with depth."""
        mixers = [[mixer.out] for mixer in self.mixers]
        pair = [] if self.pair is None else self.pair.outputs()
        return [*mixers, *([] if self.feed is None else [self.feed.outputs()]), *pair]

    def _through(self, hidden: Hidden, mix: Callable[[int, Mixer, Hidden], Tensor]) -> Hidden:
        """The stream after all parts, in turn; `mix(place, mixer, hidden)` is what a mixer does."""
        ends = iter(zip(self.norms, self.residuals))
        for place, mixer in enumerate(self.mixers):
            if place == self.bare:
                hidden = hidden.carrying(mix(place, mixer, hidden))
            else:
                hidden = self._branch(*next(ends), hidden, partial(mix, place, mixer))
        feed = self.feed
        return hidden if feed is None else self._branch(*next(ends), hidden, lambda inner: feed(inner.x, inner.valid))

    def _branch(self, norm: Norm, residual: Residual, hidden: Hidden, part: Callable[[Hidden], Tensor]) -> Hidden:
        post, output, drop = self.config.post_norm, self.config.output_norm, self.config.dropout if self.training else 0

        def branch(x: Tensor) -> Tensor:
            y = part(hidden.carrying(x if post or output else norm(x, hidden.condition, hidden.valid)))
            y = norm(y, hidden.condition, hidden.valid) if output else y
            return F.dropout(y, drop) if drop else y

        x = residual(hidden.x, branch, hidden.condition)
        return hidden.carrying(norm(x, hidden.condition, hidden.valid) if post else x)

    def _standing(self, hidden: Hidden) -> Hidden:
        """With the angles and the bias of its own position, where it has one."""
        if self.stands is None:
            return hidden
        assert hidden.elsewhere is not None
        angles, bias = hidden.elsewhere[self.stands]
        return hidden._replace(angles=angles, bias=bias)

    def forward(self, hidden: Hidden, mask: Mask) -> Hidden:
        if self.pair is not None:
            updated = self.pair(hidden._replace(x=self.residuals[0].leave(hidden.x)), mask)
            hidden = hidden._replace(pair=updated.pair)
        return self._through(hidden, lambda place, mixer, inner: mixer(self._standing(inner), mask))

    def start(
        self,
        rows: int,
        length: int,
        like: Tensor,
        cache: Cache.Config | str | None = None,
        mask: Mask = Mask(),  # noqa: B008
    ) -> list[Any]:
        """The state of generation before any token; `cache` and `mask` are for mixers that keep keys and values."""
        own = {True: (cache, mask), False: ()}
        return [mixer.start(rows, length, like, *own[mixer.caches]) for mixer in self.mixers]

    def step(self, hidden: Hidden, state: list[Any], mask: Mask) -> tuple[Hidden, list[Any]]:
        """The next tokens of a sequence after `state` → (Hidden, the new state)."""
        after = list(state)

        def mix(place: int, mixer: Mixer, inner: Hidden) -> Tensor:
            y, after[place] = mixer.step(self._standing(inner), state[place], mask)
            return y

        return self._through(hidden, mix), after

    def rows(self, state: list[Any], index: Tensor) -> list[Any]:
        """The state of the rows at `index` [k]."""
        return [mixer.rows(part, index) for mixer, part in zip(self.mixers, state)]

    def rewind(self, state: list[Any], count: int) -> list[Any] | None:
        """The state before the last `count` tokens, or None where a mixer does not have it; `state` is used up."""
        before = [mixer.rewind(part, count) for mixer, part in zip(self.mixers, state)]
        return None if any(part is None for part in before) else before


def block_of(
    config: Block.Config,
    width: int,
    index: int,
    depth: int,
    memory: int | None = None,
    condition: int | None = None,
    pair: int | None = None,
) -> Block:
    """Block `index` of `depth`, reading a memory, a condition and a pair of these widths; an error in it says that it is the
    block's."""
    cross = config.cross
    if cross is not None and "memory_width" in type(cross).model_fields and memory not in (None, width):
        config = config.replace(cross=cross.replace(memory_width=memory))
    try:
        return Block(fitted(config, width, pair), width, index, depth, condition, pair)
    except ConfigError as error:
        raise ConfigError(f"block: {error}") from None
