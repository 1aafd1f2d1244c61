"""Rotary by frequencies that are kept with the weights, as they were rounded when the model was trained; never trained.

    (x_i, x_{i+d/2}) <- R(p w_i) (x_i, x_{i+d/2}),   w_i stored; at the start w_i = base^(-2i/d)

A frequency in half precision is up to 5e-4 off, which 1,000 places on is half a radian: what such a model learned is read by
the numbers that it had. Su 2021, arXiv:2104.09864. ESM-2, whose files hold them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from pydantic import Field
from torch import Tensor

from sevenfold.blocks.position import Position, one_axis
from sevenfold.blocks.position.scaling import plain
from sevenfold.core.errors import ConfigError


class StoredRotary(Position):
    class Config(Position.Config):
        base: float = Field(10000.0, gt=1)
        """Of the frequencies at the start."""
        head_width: int | None = Field(None, ge=2)
        """Width of the heads that are turned; by default the trunk's width / heads."""

    variants = ({"base": 100.0, "head_width": 16},)
    frequencies: Tensor

    def __init__(self, config: Any, width: int, axes: int, heads: int | None = None):
        super().__init__(config, width, axes, heads)
        one_axis(self)
        self.turned_width = config.head_width or width // (heads or 1)
        if self.turned_width < 2:
            raise ConfigError(
                f"position 'stored_rotary': heads of width {self.turned_width} hold no pair to turn: choose fewer heads"
            )
        self.register_buffer("frequencies", plain(self.turned_width // 2, config.base).float())

    def angles(self, coords: Tensor, width: int) -> tuple[Tensor, Tensor]:
        if width != self.turned_width:
            raise ConfigError(
                f"position 'stored_rotary' has frequencies of heads of width {self.turned_width}, not {width}: "
                "set its head_width, or choose rotary"
            )
        angle = coords.double() * self.frequencies.double()  # [b n 1] * [pairs]
        return angle.cos().float(), angle.sin().float()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Half precision is for weights: frequencies stay as they are."""
        kept = self.frequencies
        super()._apply(fn, recurse)
        if self.frequencies.dtype.itemsize < kept.dtype.itemsize and not kept.is_meta:
            self.frequencies = kept.to(self.frequencies.device)
        return self
