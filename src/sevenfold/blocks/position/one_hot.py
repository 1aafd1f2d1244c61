"""A channel for each place: 1 there, 0 elsewhere.

    PE(p) = e_p                 p in 0 … width/axes - 1, one such part per axis

Exact and bounded, but there are as many places as channels, and no two are nearer to each other than any others. A
learned table is a linear map of this. Rumelhart 1986, doi:10.1038/323533a0 uses such local codes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sevenfold.blocks.position import Position
from sevenfold.core.errors import ConfigError, DataError


class OneHot(Position):
    class Config(Position.Config):
        pass

    def __init__(self, config: Any, width: int, axes: int, heads: int | None = None):
        super().__init__(config, width, axes, heads)
        if not 1 <= axes <= width:
            raise ConfigError(
                f"position 'one_hot': {axes} axes in a width of {width}: it needs 1 to as many: choose none"
            )

    @property
    def reach(self) -> int:
        return self.width // self.axes

    def embed(self, coords: Tensor) -> Tensor:
        if not torch.compiler.is_compiling() and ((coords < 0) | (coords >= self.reach)).any():
            raise DataError(
                f"a token stands at {coords.min():g} … {coords.max():g}, and 'one_hot' has {self.reach} places: cut the items "
                "(streams.….length), or choose sinusoidal or rotary"
            )
        places = torch.arange(self.reach, device=coords.device)
        found = (coords.unsqueeze(-1).round().long() == places).float().flatten(-2)
        return torch.nn.functional.pad(found, (0, self.width - found.shape[-1]))
