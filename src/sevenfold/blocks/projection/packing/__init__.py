"""Packings: how a matrix is kept where it is only read, in generation and embedding.

The contract of this room. A packing is built from a matrix W [width_out width_in] and b [width_out] or None, and then is a
map like any projection, forward(x [… width_in]) → [… width_out] in the dtype of x: y = W' x + b, where W' is W as it was
kept. `error` says how far an entry of W' may be from that of W, as a share of the largest of its row; the products are in
the precision that the header says. What was given is not kept, so a packing cannot be trained, nor saved as the original.
Chosen at use, never in a recipe: `model.quantize("int8")`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sevenfold.core import part
from sevenfold.core.errors import ConfigError


class Packing(part.Part, nn.Module):
    """A matrix for reading only."""

    room = "packing"

    class Config(part.Config):
        pass

    error: ClassVar[float] = 0.0
    """By how much an entry may differ from the one given, as a share of the largest of its row (in magnitude)."""
    rounds: ClassVar[float] = 0.0
    """By how much an entry of x may be rounded in a product, as a share of the largest of x (y as a share of itself)."""
    reads_table: ClassVar[bool] = False
    reads_ids: ClassVar[bool] = False
    sides: ClassVar[Mapping[str, tuple[int | None, int | None]]] = {}
    """Nothing of it is cut for several processes (see Projection)."""

    def __init__(self, config: Any, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        self.config, (self.width_out, self.width_in) = config, weight.shape
        self.bias = None if bias is None else bias.detach().float()
        self.training = False
        self.keep(weight.detach().float())

    def keep(self, weight: Tensor) -> None:
        """Keep W [width_out width_in], float32, in its form."""
        raise NotImplementedError

    def product(self, x: Tensor) -> Tensor:
        """W' x for x [… width_in] → [… width_out], in a dtype of its own."""
        raise NotImplementedError

    @property
    def bytes(self) -> int:
        """Bytes that the matrix takes, without b: those of its tensors."""
        held = (value for name, value in vars(self).items() if name != "bias")
        return sum(value.numel() * value.element_size() for value in held if isinstance(value, Tensor))

    def forward(self, x: Tensor) -> Tensor:
        y = self.product(x)
        y = y if self.bias is None else self.bias + y  # in float32, whatever y is in
        return y if y.dtype == x.dtype else y.to(x.dtype)

    def train(self, mode: bool = True) -> Packing:
        if mode:
            raise ConfigError(f"this model is packed ({self.kind}) for reading only: load it again to train it")
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> NoReturn:
        raise ConfigError(
            f"this model is packed ({self.kind}), its weights are not those it was loaded from: load it again"
        )

    def extra_repr(self) -> str:
        return f"{self.width_in}, {self.width_out}, {self.bytes:,} bytes"


def rows_of(x: Tensor, columns: int) -> Tensor:
    """x [… k] as bfloat16 [m columns], filled up with columns of 0."""
    return padded(x.reshape(-1, x.shape[-1]).to(torch.bfloat16), columns)


def padded(x: Tensor, columns: int) -> Tensor:
    """x [m k] with columns of 0 up to a number of them."""
    return x if x.shape[-1] == columns else F.pad(x, (0, columns - x.shape[-1]))


def up(number: int, unit: int) -> int:
    """The next multiple of a unit."""
    return -(-number // unit) * unit


def has(name: str, like: Tensor) -> bool:
    """Whether this torch has an operator (`namespace.name`) for where a tensor is."""
    space, _, operator = name.partition(".")
    found = getattr(getattr(torch.ops, space), operator, None)
    return found is not None and like.device.type == "cpu"
