"""Where the blocks of a trunk stand: by the trunk's position, or by one of their own (`block.position`).

Each distinct one is made once, whatever number of blocks has it, and answers once per pass: ModernBERT's blocks have two
rotary bases in turn, others have no position in every fourth block.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch import Tensor

from sevenfold.assembly.block import Block
from sevenfold.blocks.position import Position
from sevenfold.core.errors import ConfigError
from sevenfold.core.modules import ModuleList
from sevenfold.core.types import Bias, Hidden

Standing = tuple[dict[int, tuple[Tensor, Tensor]] | None, Bias | None]
"""(angles, bias), as a Hidden has them."""


def own_positions(blocks: Iterable[Block], width: int, axes: int, heads: int | None) -> ModuleList[Position]:
    """The distinct positions that blocks have of their own; each block is told which of them is its. ConfigError for one that
    is added to the embedded tokens, which blocks do not see."""
    configs: list[Position.Config] = []
    for block in blocks:
        own = block.config.position
        if own is not None:
            if own not in configs:
                configs.append(own)
            block.stands = configs.index(own)
    made: ModuleList[Position] = ModuleList(config.build(width, axes, heads) for config in configs)
    for position in made:
        if position.adds:
            raise ConfigError(
                f"block.position: {position.kind!r} is added to the embedded tokens: it belongs in the trunk's position"
            )
    return made


def standing(position: Position, blocks: Iterable[Block], hidden: Hidden) -> Standing:
    """What a position tells the mixers of blocks: rotations of the widths that they turn, and its bias."""
    angles = {}
    for width in dict.fromkeys(mixer.rotated for block in blocks for mixer in block.mixers):
        if width is not None and hidden.coords is not None:
            turned = position.angles(hidden.coords, width)
            if turned is not None:
                angles[width] = turned
    return angles or None, cast(Bias, position.bias) if position.biased else None
