"""Prototypes: the heads of self-distillation, what they are compared by, and what keeps neighbours apart.

    head(x) = V^ f(x) / |f(x)|,   f a perceptron, V^ [k w] with rows of length 1
    H(P, s) = - sum_k P_k log softmax(s / t)_k                               P the teacher's, balanced and sharpened
    koleo   = - mean_i log min_{j != i} |x_i / |x_i| - x_j / |x_j||

Caron 2021 (DINO), arXiv:2104.14294 section 3.1; Sablayrolles 2018 (KoLeo), arXiv:1806.03198.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.core import part, ranks
from sevenfold.core.initial import Normal, Rule, Ruled
from sevenfold.objective._projector import Projector


class HeadSettings(part.Config):
    """The perceptron and prototypes behind a representation."""

    prototypes: int = Field(256, ge=2)
    """k; published models have 8,192 to 131,072 of them."""
    hidden: int = Field(256, ge=1)
    """Channels inside the perceptron."""
    width: int = Field(64, ge=1)
    """w, channels that are compared with the prototypes."""
    layers: int = Field(3, ge=1, le=16)
    """Linear maps of the perceptron."""
    norm: Literal["batch"] | None = None
    """A batch norm between them, published as an option (`use_bn_in_head`). A convolutional network of a few hundred steps
    learns far more with it."""
    standardise: bool = True
    """Bring each channel of f to mean 0 and variance 1 over the batch. Published models do not; in small ones all class
    tokens begin alike, and without it teacher and student soon agree on saying nothing."""
    shared: bool = False
    """One head for class and patch tokens, instead of one each."""


class Head(Ruled):
    """x [b d] → scores [b k] in -1…1."""

    def __init__(self, width: int, settings: HeadSettings):
        super().__init__()
        self.standardise = settings.standardise
        self.perceptron = Projector(width, settings.hidden, settings.width, settings.layers, settings.norm, act=F.gelu)
        self.prototypes = nn.Parameter(torch.empty(settings.prototypes, settings.width))
        self.begin()

    def rules(self) -> dict[str, Rule]:
        return {"prototypes": Normal(1.0)}

    def points(self, x: Tensor) -> Tensor:
        """[b w] of length 1: what is compared with the prototypes."""
        x = self.perceptron(x)
        if self.standardise:
            others = ranks.data()
            count = others.all_reduce_no_grad(torch.tensor(float(len(x)), device=x.device)).clamp(min=1)
            x = x - others.all_reduce(x.sum(0)) / count
            x = x * (others.all_reduce(x.square().sum(0)) / count + 1e-12).rsqrt()
        return F.normalize(x, dim=-1)

    def scores(self, points: Tensor) -> Tensor:
        """Points [b w] → [b k]."""
        return points @ F.normalize(self.prototypes, dim=-1).T

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.points(x))

    def flops(self, rows: int = 1) -> int:
        return self.perceptron.flops(rows) + 2 * rows * self.prototypes.numel()


def against(p: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """H(p, scores) of each row, [b]."""
    return -(p * F.log_softmax(scores / temperature, -1)).sum(-1)


def koleo(x: Tensor, floor: float = 1e-8) -> Tensor:
    """How near the nearest neighbours are among all ranks' rows, a scalar; 0 of fewer than two. Equal rows count as `floor`
    apart."""
    x = ranks.data().all_gather(x)
    if len(x) < 2:
        return x.sum() * 0
    u = F.normalize(x, dim=-1)
    with torch.no_grad():
        nearest = (u @ u.T).fill_diagonal_(-2).argmax(1)
    return -((u - u[nearest]).norm(dim=-1) + floor).log().mean()
