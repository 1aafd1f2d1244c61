"""One block: mix tokens, optionally look at an earlier trunk, transform each token; each in a residual, with a norm.

pre-norm (default)   x <- R(x, mix o norm);            x <- R(x, feed o norm)
post-norm            x <- norm(R(x, mix));             x <- norm(R(x, feed))          (BERT)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.mixing import Mixer
from sevenfold.blocks.nonlinearity import Nonlinearity
from sevenfold.blocks.normalization import Norm
from sevenfold.blocks.projection import Projection
from sevenfold.blocks.residual import Residual
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.modules import ModuleList
from sevenfold.core.types import Hidden, Mask


class Block(nn.Module):
    """Hidden → the stream after it, x [b n d]."""

    class Config(part.Config):
        mixer: Mixer.Config = part.default("attention")
        """How tokens learn of each other."""
        cross: Mixer.Config | None = None
        """How tokens read the trunk named in cross_attends; by default `cross` where there is one."""
        nonlinearity: Nonlinearity.Config | None = part.default("gelu")
        """The feed-forward part; null for none."""
        norm: Norm.Config = part.default("layer")
        """The normalization before (or, post-norm, after) each part."""
        residual: Residual.Config = part.default("add")
        """How each part's output joins the stream."""
        projection: Projection.Config = part.default("linear")
        """What the mixer and the feed-forward part are built of."""
        post_norm: bool = False
        """Normalize after each residual instead of before each part."""
        dropout: float = Field(0.0, ge=0, lt=1)
        """Share of each part's output dropped in training."""

    def __init__(self, config: Any, width: int, index: int = 0, depth: int = 1):
        super().__init__()
        self.config = config
        if config.projection.part.reads_ids or config.projection.part.reads_table:
            raise ConfigError(f"block.projection: {config.projection.kind!r} does not map vectors: choose linear")
        project = config.projection.build
        self.mixer: Mixer = config.mixer.build(width, project)
        if self.mixer.crosses:
            raise ConfigError(f"block.mixer: {config.mixer.kind!r} reads another trunk; it belongs in block.cross")
        self.cross: Mixer | None = config.cross.build(width, project) if config.cross else None
        if self.cross is not None and not self.cross.crosses:
            raise ConfigError(
                f"block.cross: {config.cross.kind!r} does not read another trunk; it belongs in block.mixer"
            )
        self.feed: Nonlinearity | None = config.nonlinearity.build(width, project) if config.nonlinearity else None
        branches = 1 + (self.cross is not None) + (self.feed is not None)
        self.norms: ModuleList[Norm] = ModuleList(config.norm.build(width) for _ in range(branches))
        self.residuals: ModuleList[Residual] = ModuleList(
            config.residual.build(width, index, depth) for _ in range(branches)
        )

    def outputs(self) -> list[Projection]:
        """The last projection of each branch, which initialisation scales down with depth."""
        return [branch.out for branch in (self.mixer, self.cross, self.feed) if branch is not None]

    def _branch(self, place: int, hidden: Hidden, part: Callable[[Hidden], Tensor]) -> Hidden:
        norm, post = self.norms[place], self.config.post_norm

        def branch(x: Tensor) -> Tensor:
            y = part(hidden._replace(x=x if post else norm(x, hidden.condition, hidden.valid)))
            return F.dropout(y, self.config.dropout, self.training) if self.config.dropout else y

        x = self.residuals[place](hidden.x, branch, hidden.condition)
        return hidden._replace(x=norm(x, hidden.condition, hidden.valid) if post else x)

    def forward(self, hidden: Hidden, mask: Mask) -> Hidden:
        hidden = self._branch(0, hidden, lambda inner: self.mixer(inner, mask))
        if self.cross is not None:
            cross = self.cross
            hidden = self._branch(1, hidden, lambda inner: cross(inner, mask))
        if self.feed is not None:
            feed = self.feed
            hidden = self._branch(-1, hidden, lambda inner: feed(inner.x, inner.valid))
        return hidden

    def start(self, rows: int, length: int, like: Tensor) -> list[Any]:
        """The state of generation before any token."""
        return [part.start(rows, length, like) for part in (self.mixer, self.cross) if part is not None]

    def step(self, hidden: Hidden, state: list[Any], mask: Mask) -> tuple[Hidden, list[Any]]:
        """The next tokens of a sequence after `state` → (Hidden, the new state)."""
        after = list(state)

        def stepping(place: int, mixer: Mixer) -> Callable[[Hidden], Tensor]:
            def run(inner: Hidden) -> Tensor:
                y, after[place] = mixer.step(inner, state[place], mask)
                return y

            return run

        hidden = self._branch(0, hidden, stepping(0, self.mixer))
        if self.cross is not None:
            hidden = self._branch(1, hidden, stepping(1, self.cross))
        if self.feed is not None:
            feed = self.feed
            hidden = self._branch(-1, hidden, lambda inner: feed(inner.x, inner.valid))
        return hidden, after


def block_of(config: Block.Config, width: int, index: int, depth: int, memory: int | None = None) -> Block:
    """Block `index` of `depth`, reading a memory of that width; an error in it says that it is the block's."""
    cross = config.cross
    if cross is not None and "memory_width" in type(cross).model_fields and memory not in (None, width):
        config = config.replace(cross=cross.replace(memory_width=memory))
    try:
        return Block(config, width, index, depth)
    except ConfigError as error:
        raise ConfigError(f"block: {error}") from None
