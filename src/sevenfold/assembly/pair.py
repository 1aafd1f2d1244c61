"""The pair representation of a trunk: how it begins, how blocks update it, and which blocks can work on which tokens.

    z_ij = W_l x_i + W_r x_j + table[clip(i - j, -r, r)]          then, in each block, before the tokens read it:
    z <- R(z, part o norm) for each part of block.pair;           z <- R(z, feed o norm)

Jumper 2021, doi:10.1038/s41586-021-03819-2, supplement, algorithms 3 and 4; the order is that of Abramson 2024,
doi:10.1038/s41586-024-07487-w, supplement, algorithm 17. In a trunk whose blocks mix a grid the pair is of columns, and x_i
is the mean of a column. Norms, residuals and the feed-forward part take the pair as a sequence of n^2 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.mixing import Mixer, Project, paired
from sevenfold.blocks.nonlinearity import Nonlinearity
from sevenfold.blocks.normalization import Norm
from sevenfold.blocks.projection import Projection
from sevenfold.blocks.residual import Residual
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Normal, Rule, Ruled
from sevenfold.core.modules import ModuleDict, ModuleList
from sevenfold.core.types import Hidden, Mask
from sevenfold.modality import Modality


class PairConfig(part.Config):
    """A pair representation beside the tokens."""

    width: int = Field(64, ge=1, le=1 << 12)
    """Channels of a pair."""
    relative: int = Field(32, ge=0, le=1 << 16)
    """Distances along the tokens up to this many places are told apart at the start."""


class PairEmbed(Ruled):
    """The first pair representation, [b n n p], from embedded tokens x [b n d]."""

    def __init__(self, config: PairConfig, width: int):
        super().__init__()
        self.config = config
        linear = part.find("projection", "linear").Config()
        self.left: Projection = linear.build(width, config.width)
        self.right: Projection = linear.build(width, config.width)
        self.table = nn.Parameter(torch.empty(2 * config.relative + 1, config.width))
        self.begin()

    def rules(self) -> dict[str, Rule]:
        return {"table": Normal(0.02)}

    def forward(self, hidden: Hidden) -> Tensor:
        x, valid = hidden.x, hidden.valid
        if hidden.grid is not None:
            weight = x.new_ones(x.shape[:2]) if valid is None else valid.to(x.dtype)
            weight = weight.unflatten(1, hidden.grid).unsqueeze(-1)
            x, valid = (x.unflatten(1, hidden.grid) * weight).sum(1) / weight.sum(1).clamp(min=1), None
        place = torch.arange(x.shape[1], device=x.device)[None] if valid is None else valid.long().cumsum(1)
        apart = (place[:, :, None] - place[:, None, :]).clamp(-self.config.relative, self.config.relative)
        return self.left(x)[:, :, None] + self.right(x)[:, None] + self.table[apart + self.config.relative]

    def flops(self, side: int) -> int:
        """Multiply-adds ×2 for a pair of side × side."""
        return self.left.flops(side) + self.right.flops(side)


class PairUpdates(Ruled):
    """What one block does to the pair: each part of `block.pair`, then `block.pair_nonlinearity`."""

    def __init__(self, config: Any, width: int, index: int, depth: int, project: Project, condition: int | None = None):
        super().__init__()
        self.config = config
        self.parts: ModuleList[Mixer] = ModuleList(item.build(width, project) for item in config.pair)
        for item in self.parts:
            if not item.pairs:
                raise ConfigError(f"block.pair: {item.kind!r} mixes tokens; it belongs in block.mixer")
        feed = config.pair_nonlinearity
        self.feed: Nonlinearity | None = feed.build(width, project) if feed else None
        branches = len(self.parts) + (self.feed is not None)
        self.norms: ModuleDict[Norm] = ModuleDict()  # none where a part does not read the pair
        for place in range(branches):
            after = config.post_norm or config.output_norm
            if after or place == len(self.parts) or "pair" in self.parts[place].needs:
                self.norms[str(place)] = config.last_norm.build(width, condition)
        self.residuals: ModuleList[Residual] = ModuleList(
            config.pair_residual.build(width, index, depth, place, condition) for place in range(branches)
        )
        if any(residual.streams > 1 for residual in self.residuals):
            raise ConfigError(f"block.pair_residual: {config.pair_residual.kind!r} carries several streams: choose add")

    def outputs(self) -> list[list[Projection]]:
        """The last projections of each branch, which initialisation scales down with depth."""
        mixers = [[item.out] for item in self.parts]
        return mixers if self.feed is None else [*mixers, self.feed.outputs()]

    def _branch(self, place: int, hidden: Hidden, run: Callable[[Tensor], Tensor], real: Tensor | None) -> Hidden:
        post, output, condition = self.config.post_norm, self.config.output_norm, hidden.condition
        norm = self.norms[str(place)] if str(place) in self.norms else None  # noqa: SIM401 (torch's has no get)
        assert hidden.pair is not None

        def branch(z: Tensor) -> Tensor:
            y = run(z if post or output or norm is None else norm(z, condition, real))
            y = norm(y, condition, real) if output and norm is not None else y
            return F.dropout(y, self.config.dropout, self.training) if self.config.dropout else y

        z = self.residuals[place](hidden.pair.flatten(1, 2), branch, condition)
        z = norm(z, condition, real) if post and norm is not None else z
        return hidden._replace(pair=z.unflatten(1, hidden.pair.shape[1:3]))

    def forward(self, hidden: Hidden, mask: Mask) -> Hidden:
        """Hidden with x [b n d] and a pair → the same with the pair updated."""
        assert hidden.pair is not None
        sides, real = hidden.pair.shape[1:3], paired(hidden)
        real = None if real is None else real.flatten(1)
        for place, item in enumerate(self.parts):

            def run(z: Tensor, item: Mixer = item, hidden: Hidden = hidden) -> Tensor:
                return item(hidden._replace(pair=z.unflatten(1, sides)), mask).flatten(1, 2)

            hidden = self._branch(place, hidden, run, real)
        if self.feed is not None:
            feed = self.feed
            hidden = self._branch(len(self.parts), hidden, lambda z: feed(z, real), real)
        return hidden


def updates_of(
    config: Any, pair: int | None, index: int, depth: int, project: Project, condition: int | None
) -> PairUpdates | None:
    """What a block does to a pair of that width; None if nothing."""
    if not config.pair and config.pair_nonlinearity is None:
        return None
    if pair is None:
        kind = config.pair[0].kind if config.pair else config.pair_nonlinearity.kind
        raise ConfigError(f"block.pair: {kind!r} updates a pair representation: give the trunk one (pair.width)")
    return PairUpdates(config, pair, index, depth, project, condition)


def fitted(config: Any, width: int, pair: int | None) -> Any:
    """A block's config, its parts told how wide the tokens and the pair are."""
    mixer = config.mixer
    if mixer is not None and pair is not None and "pair_width" in type(mixer).model_fields:
        config = config.replace(mixer=mixer.replace(pair_width=pair))
    told = tuple(
        item.replace(token_width=width) if "token_width" in type(item).model_fields else item for item in config.pair
    )
    return config.replace(pair=told) if told else config


def grid_of(
    config: Any, blocks: Iterable[Any], streams: Mapping[str, Modality], earlier: Mapping[str, Any]
) -> tuple[int, int] | None:
    """(rows, columns) of a trunk whose blocks need a grid, and whose tokens are a whole one, row by row; else None."""
    if not any("grid" in item.needs for block in blocks for item in _parts(block)):
        return None
    if len(config.inputs) != 1 or config.class_token or config.registers:
        return None
    name = config.inputs[0]
    if name not in streams:
        return earlier[name].grid
    layout = streams[name].tokenizer.layout()
    if layout is None or layout.ndim != 2 or layout.shape[1] != 2 or not len(layout):
        return None
    rows, columns = (int(side) + 1 for side in layout.max(0))
    whole = np.indices((rows, columns)).reshape(2, -1).T
    return (rows, columns) if np.array_equal(layout, whole) else None


def framed(config: Any, streams: Mapping[str, Modality], earlier: Mapping[str, Any]) -> bool:
    """Whether some input of a trunk has frames."""
    return any(streams[name].tokenizer.framed if name in streams else earlier[name].framed for name in config.inputs)


def _parts(block: Any) -> list[Mixer]:
    """The mixers of a block: of tokens, and of the pair."""
    return [*([] if block.mixer is None else [block.mixer]), *([] if block.pair is None else block.pair.parts)]


def check_needs(config: Any, blocks: Iterable[Any], grid: tuple[int, int] | None, frames: bool) -> None:
    """ConfigError for blocks that need what a trunk does not have: a pair, a grid, frames."""
    for index, block in enumerate(blocks):
        for item in _parts(block):
            what = f"block {index}: {item.kind!r}"
            reads = "pair" in item.needs or getattr(item, "pair_width", None)
            if reads and config.pair is None:
                raise ConfigError(f"{what} reads a pair representation, and this trunk has none: set pair.width")
            if "frames" in item.needs and not frames:
                raise ConfigError(
                    f"{what} needs tokens with frames, and {' and '.join(config.inputs)} give none: choose a tokenizer of "
                    "structures"
                )
            if "grid" in item.needs and grid is None:
                raise ConfigError(
                    f"{what} needs tokens that are one whole grid: one input of pictures of one size (or a trunk that "
                    "has a grid), no class token, no registers"
                )
            if grid is not None and reads and not item.pairs and "grid" not in item.needs:
                raise ConfigError(f"{what} reads a pair of tokens, and in a trunk that mixes a grid it is of columns")
            if config.mask.causal and item.pairs:
                raise ConfigError(f"{what} does not work forward only: leave mask.causal out")


def with_pair(embed: PairEmbed | None, hidden: Hidden, grid: tuple[int, int] | None) -> Hidden:
    """Hidden with the trunk's grid and its first pair representation."""
    if grid is not None:
        if hidden.x.shape[1] != grid[0] * grid[1]:
            raise ConfigError(f"a grid of {grid[0]} x {grid[1]} tokens was expected, and {hidden.x.shape[1]} came")
        hidden = hidden._replace(grid=grid)
    return hidden if embed is None else hidden._replace(pair=embed(hidden))
