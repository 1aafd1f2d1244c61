"""Heads: the last map, from the vectors of a trunk to what is asked for.

y = W s f(x) + b        s `scale`; f a dense layer with GELU and a norm (`transform`), or nothing
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.normalization import Norm
from sevenfold.blocks.projection import Projection
from sevenfold.core import part
from sevenfold.core.initial import Ruled


class HeadConfig(part.Config):
    """Vectors of a trunk to something asked for: the ids or vectors of a stream, or a number of outputs."""

    trunk: str
    """The trunk whose tokens it reads."""
    stream: str | None = None
    """The stream whose ids (or vectors) it gives."""
    outputs: int | None = Field(None, ge=1)
    """How many outputs, where that is not given by a stream."""
    pool: Literal["none", "mean", "class", "last", "class_mean", "quarters"] = "none"
    """One vector per row (the mean over tokens, the class token, the last token, the class token beside the mean, the means
    over a picture's quarters), or every token."""
    projection: Projection.Config = part.default("linear")
    """The last map; `tied` reads the stream's embedding table."""
    transform: bool = False
    """A dense layer with GELU and a norm before it (BERT)."""
    transform_bias: bool = True
    """Whether that dense layer has a bias."""
    scale: float = Field(1.0, gt=0)
    """What the vectors are multiplied by before the last map (T5: 1/sqrt(width))."""


class Head(Ruled):
    """x [… d] → [… outputs]."""

    Config = HeadConfig

    def __init__(self, config: HeadConfig, width: int, outputs: int, norm: Norm.Config):
        super().__init__()
        self.config, self.outputs = config, outputs
        linear = part.find("projection", "linear").Config(bias=config.transform_bias)
        self.dense = linear.build(width, width) if config.transform else None
        self.norm = norm.build(width) if config.transform else None
        projection = config.projection
        if projection.kind == "linear" and projection.std is None:
            projection = projection.replace(std=0.02)
        self.projection = projection.build(width, outputs)
        self.scale = config.scale  # of x before the last map; an initialisation may change it

    def before(self, x: Tensor) -> Tensor:
        """x [… d] → what the last map is given, [… d]."""
        if self.dense is not None and self.norm is not None:
            x = self.norm(nn.functional.gelu(self.dense(x)))
        return x if self.scale == 1 else x * self.scale

    def last(self, table: Tensor | None = None) -> tuple[Tensor, Tensor | None] | None:
        """The last map as (W [outputs d], b), where it is W x + b and nothing stands beside it (an adapter)."""
        hooked = self.projection._forward_hooks or self.projection._forward_pre_hooks
        return None if hooked else self.projection.matrix(table)

    def forward(self, x: Tensor, table: Tensor | None = None) -> Tensor:
        x = self.before(x)
        return self.projection(x) if table is None else self.projection(x, table)
