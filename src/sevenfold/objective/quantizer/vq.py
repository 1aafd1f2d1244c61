"""Vector quantization: the nearest of K vectors, which follow the means of what is nearest to them.

    k = argmin_k |z|^2 - 2 z.e_k + |e_k|^2,   out = z + sg(e_k - z),   penalty = beta mean_c (z - sg(e_k))^2
    N <- g N + (1-g) n,   m <- g m + (1-g) sum_{z in k} z,   e = m / N~,   N~ = (N + eps) / (sum N + K eps) sum N

van den Oord 2017 (VQ-VAE), arXiv:1711.00937 eq. 1-3 and appendix A.1, g = 0.99, beta = 0.25. The first codes are vectors
of the first batch; a code that is hardly used becomes a vector of the batch (Dhariwal 2020, Jukebox, arXiv:2005.00341
sec. 3.1). DALL-E and VQ-GAN's successors, EnCodec and SoundStream with several codebooks in turn.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.core import ranks
from sevenfold.core.types import wide
from sevenfold.objective.quantizer import Quantized, Quantizer

EPSILON = 1e-5
"""Laplace smoothing of how often codes are used."""

FIRST = 0.1
"""The use of a first code where none is revived, as a share of an even one: little, so that it moves quickly."""


class VQ(Quantizer):
    class Config(Quantizer.Config):
        size: int = Field(512, ge=1, le=1 << 16)
        """Codes K."""
        width: int = Field(16, ge=1, le=4096)
        """Numbers of a code; few, so that all codes are used."""
        commitment: float = Field(0.25, ge=0)
        """beta: how strongly vectors are held near their codes."""
        decay: float = Field(0.99, ge=0, lt=1)
        """g: the share of a code that a step leaves as it was."""
        revive: float = Field(0.1, ge=0, lt=1)
        """A code used less than this share of an even use becomes a vector of the batch; 0: never."""

    variants = ({"size": 1}, {"size": 7, "width": 3, "revive": 0.0})

    def __init__(self, config: Any):
        super().__init__(config, config.size, config.width)
        shape = (config.size, config.width)
        self.codes: Tensor
        self.means: Tensor
        self.weights: Tensor
        self.begun: Tensor
        self.summed: Tensor
        self.register_buffer("codes", torch.randn(shape))
        self.register_buffer("means", torch.zeros(shape))
        self.register_buffer("weights", torch.zeros(config.size))
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))
        self.register_buffer("summed", torch.zeros(shape), persistent=False)
        self.offered: list[tuple[Tensor, Tensor]] = []
        """Scores [k] and vectors [k w] with the lowest scores, at most K of them, since `forget`."""

    def forward(self, z: Tensor, valid: Tensor | None = None, score: Tensor | None = None) -> Quantized:
        with torch.autocast(z.device.type, enabled=False):
            z = wide(z)
            ids = self.nearest(z.detach().flatten(0, -2)).view(z.shape[:-1])
            if self.training:
                score = torch.rand(ids.shape, device=ids.device) if score is None else score
                keep = torch.ones_like(ids, dtype=torch.bool) if valid is None else valid
                self._take_note(z.detach()[keep], ids[keep], score[keep])
            e = self.codes[ids].to(z.dtype)
            return Quantized(self.carried(z, e), ids, self.config.commitment * (z - e).square().mean(-1))

    def nearest(self, z: Tensor) -> Tensor:
        """The number of the code nearest to each of z [n w], [n]; a few megabytes of distances at a time."""
        codes = self.codes.to(z.dtype)
        squares = codes.square().sum(1)
        step = max(1, (1 << 24) // self.size)
        found = [
            (part.square().sum(1, keepdim=True) - 2 * part @ codes.T + squares).argmin(1) for part in z.split(step)
        ]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.long, device=z.device)

    def carried(self, z: Tensor, e: Tensor) -> Tensor:
        """The codes e [… w], with the gradient of z [… w] (straight through)."""
        return z + (e - z).detach()

    def vectors(self) -> Tensor:
        return self.codes

    def flops(self, tokens: int) -> int:
        return 2 * tokens * self.size * self.width

    def forget(self) -> None:
        super().forget()
        self.summed.zero_()
        self.offered = []

    def _take_note(self, z: Tensor, ids: Tensor, score: Tensor) -> None:
        """Valid vectors [n w], their codes and scores [n]."""
        self.note(ids)
        self.summed.index_add_(0, ids, z.to(self.summed.dtype))
        self._offer(*(torch.cat(parts) for parts in zip(*self.offered, (score, z))))

    def _offer(self, scores: Tensor, vectors: Tensor) -> None:
        """Keep those with the lowest scores."""
        lowest = scores.argsort(stable=True)[: self.size]
        self.offered = [(scores[lowest], vectors[lowest])]

    def gather(self) -> None:
        super().gather()
        others = ranks.data()
        if not others.alone:
            self.summed.copy_(others.all_reduce_no_grad(self.summed))
            empty = self.summed.new_empty(0, *self.summed.shape[1:])
            scores, vectors = self.offered[0] if self.offered else (empty[:, 0], empty)
            self._offer(others.all_gather(scores.to(empty)), others.all_gather(vectors.to(empty)))

    def learn(self) -> None:
        if self.counted.any():
            gain = 1 - self.config.decay
            self.weights.mul_(self.config.decay).add_(self.counted, alpha=gain)
            self.means.mul_(self.config.decay).add_(self.summed, alpha=gain)
            even = float(self.counted.sum()) / self.size
            if self.begun:
                total = self.weights.sum()
                smooth = (self.weights + EPSILON) / (total + self.size * EPSILON) * total
                self.codes.copy_(self.means / smooth.unsqueeze(1))
                self._renew(self.weights < self.config.revive * even, self.config.revive * even)
            else:
                self._renew(torch.ones_like(self.weights, dtype=torch.bool), (self.config.revive or FIRST) * even)
                self.begun.fill_(True)
                self.counted.zero_()  # how the codes before these were used says nothing
        super().learn()

    def _renew(self, which: Tensor, weight: float) -> None:
        """Put vectors of the batch in the place of codes [K] bool, as if each had been used `weight` times; of more codes
        than there are vectors, the first ones."""
        vectors = self.offered[0][1]
        places = which.nonzero().flatten()[: len(vectors)]
        fresh = vectors[: len(places)].to(self.codes.dtype)
        self.codes[places], self.means[places], self.weights[places] = fresh, fresh * weight, weight
