"""Positions: how coordinates [b n c] reach the model, and by nothing else.

The contract of this room. A scheme answers any of three questions, and leaves the others at None:
what is added to the embeddings, by which angles queries and keys are turned, what is added to attention scores.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sevenfold.core import part
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.initial import Ruled


class Position(part.Part, Ruled):
    """A position scheme for coordinates with `axes` columns in a trunk of the given width, whose mixers have at most
    `heads` heads (None: nobody said)."""

    room = "position"

    class Config(part.Config):
        pass

    turned_width: int | None = None
    """The only width of heads that it turns; None: any."""

    def __init__(self, config: Any, width: int, axes: int, heads: int | None = None):
        super().__init__()
        self.config, self.width, self.axes = config, width, axes

    @property
    def reach(self) -> int | None:
        """Coordinates are 0 … reach-1; None: anything. A trunk refuses streams that are longer than this."""
        return None

    def embed(self, coords: Tensor) -> Tensor | None:
        """coords [b n c] → [b n width], added to the embedded tokens."""
        return None

    def class_row(self) -> Tensor | None:
        """[width], added to a class token, which has no coordinates."""
        return None

    def angles(self, coords: Tensor, width: int) -> tuple[Tensor, Tensor] | None:
        """coords [b n c] → (cos, sin), each [b n width/2] float32: the rotation of a head's pairs (i, i + width/2), times
        one factor where a scheme sharpens scores."""
        return None

    def bias(self, query: Tensor, key: Tensor, heads: int) -> Tensor | None:
        """query coords [b n c], key coords [b m c] → [b heads n m], added to attention scores."""
        return None

    def check_reach(self, coords: Tensor, table: str) -> None:
        """DataError for a coordinate beyond the reach, the rows of a `table`; not asked in traced code, which cannot."""
        assert self.reach is not None
        if not torch.compiler.is_compiling() and ((coords < 0) | (coords >= self.reach)).any():
            raise DataError(
                f"a token stands at {coords.min():g} … {coords.max():g}, outside the {table} of {self.reach} rows: cut the items "
                "(streams.….length) or raise position.size"
            )

    @property
    def adds(self) -> bool:
        """Whether `embed` gives something."""
        return type(self).embed is not Position.embed

    @property
    def biased(self) -> bool:
        """Whether `bias` is given."""
        return type(self).bias is not Position.bias

    @property
    def turns(self) -> bool:
        """Whether `angles` are given."""
        return type(self).angles is not Position.angles


def one_axis(part: Position) -> None:
    """Refuse a one-dimensional scheme on coordinates with more axes."""
    if part.axes < 1:
        raise ConfigError(f"position {part.kind!r} needs tokens with coordinates; these have none: choose none")
    if part.axes != 1:
        raise ConfigError(
            f"position {part.kind!r} reads one axis, and this trunk's tokens have {part.axes}: "
            "choose axial_rotary, learned or sinusoidal, or number the joined tokens with `index: true`"
        )
