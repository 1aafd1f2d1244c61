"""Projections: what takes vectors (or ids) of one width to vectors of another. Everything else is built on them.

One that reads a row (`reads_row`) embeds a token by what else is in its row; it takes forward(ids [b n], valid [b n] or None,
segments [b n] or None), and padding and other segments are nothing to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from sevenfold.core import part
from sevenfold.core.initial import Ruled


class Projection(part.Part, Ruled):
    """forward(x [… width_in]) → [… width_out]. `weight` is its matrix, [width_out width_in] (of one that reads ids
    [width_in width_out]; one that reads a table has none of its own)."""

    room = "projection"

    class Config(part.Config):
        std: float | None = Field(None, gt=0)
        """Standard deviation of the initial weights; by default the usual one of its kind."""

    reads_ids: ClassVar[bool] = False
    """Whether it takes ids [b n] instead of vectors; then width_in is how many ids there are."""
    reads_table: ClassVar[bool] = False
    """Whether it takes the input embedding's table [width_out width_in] as a second argument."""
    reads_row: ClassVar[bool] = False
    """Whether what it makes of an id depends on the other ids of the row."""
    dense: ClassVar[bool] = True
    """Whether it is one matrix, `weight`; a small network (of a group of points) has several."""
    sides: ClassVar[Mapping[str, tuple[int | None, int | None]]] = {}
    """Name of a parameter → its axes that run over outputs and over inputs, where it can be cut along these; of a projection that
    says nothing every process has all."""
    example_width: ClassVar[int] = 24
    """A width_in that it takes, with which it is checked."""
    weight: Tensor
    added: int = 1
    """Of how many that are cut along their inputs it is one: what they give is added up."""

    def __init__(self, config: Any, width_in: int, width_out: int):
        super().__init__()
        self.config, self.width_in, self.width_out = config, width_in, width_out

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def to_float8(self) -> bool:
        """From now on multiply 8-bit numbers in training, if it can; whether it does (sevenfold.training.precision)."""
        return False

    def start_from(self, vectors: Tensor) -> None:
        """Begin with what the ids stand for, vectors [ids p], where the tokenizer knows it (a codebook)."""

    def matrix(self, table: Tensor | None = None) -> tuple[Tensor, Tensor | None] | None:
        """(W [width_out width_in], b or None) where forward is y = W x + b, so that it can be packed for reading only (see
        sevenfold.blocks.projection.packing); None where it is more than that. `table` is what forward would be given."""
        return None

    def flops(self, tokens: int) -> int:
        """Multiply-adds ×2 of one forward pass over `tokens` vectors, by formula."""
        return 2 * tokens * self.width_in * self.width_out

    def kept(self, tokens: int) -> int:
        """Numbers kept for the backward pass over `tokens` vectors, beside the input and parameters, by formula."""
        return 0
