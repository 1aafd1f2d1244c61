"""Quantizers: a vector becomes one of K codes, and its gradient passes through as if it had not.

The contract of this room. A quantizer has no trained parameters of its own: what it learns stands in buffers, which are
changed by `after_step` only, once per optimizer step, from what `forward` has seen since `forget`. So a batch may come in
pieces, a step that is not taken leaves no trace, and a checkpoint holds all there is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sevenfold.core import part, ranks
from sevenfold.core.initial import Ruled

DECAY = 0.99
"""Per step, of how often each code is used: the use is that of the last hundred steps or so."""


class Quantized(NamedTuple):
    """x [… w] the vectors of the codes, with the gradient of what was quantized; ids [… ] int64; penalty [… ], a loss
    per vector that keeps what is quantized near the codes."""

    x: Tensor
    ids: Tensor
    penalty: Tensor


class Quantizer(part.Part, Ruled):
    """Vectors of `width` numbers to one of `size` codes."""

    room = "quantizer"

    class Config(part.Config):
        pass

    def __init__(self, config: Any, size: int, width: int):
        super().__init__()
        self.config, self.size, self.width = config, size, width
        self.uses: Tensor
        """[K] how often each code is used in a step, a moving average; all 0 before the first step."""
        self.counted: Tensor
        """[K] how often each code was used since `forget`."""
        self.register_buffer("uses", torch.zeros(size))
        self.register_buffer("counted", torch.zeros(size), persistent=False)

    def forward(self, z: Tensor, valid: Tensor | None = None, score: Tensor | None = None) -> Quantized:
        """z [… w] → Quantized. In training it takes note of the valid vectors ([… ] bool; None: all).

        `score` [… ] in 0…1, random unless given: where vectors are to be chosen among, the lowest are.
        """
        raise NotImplementedError

    def vectors(self) -> Tensor:
        """What each code stands for, [K w]."""
        raise NotImplementedError

    def flops(self, tokens: int) -> int:
        """FLOPs of products for that many vectors."""
        return 0

    def forget(self) -> None:
        """A step begins: drop what was noted of one that was not taken."""
        self.counted.zero_()

    def note(self, ids: Tensor) -> None:
        """Count the codes that are used, in training."""
        if self.training:
            self.counted += torch.bincount(ids.flatten(), minlength=self.size).to(self.counted)

    def gather(self) -> None:
        """Add what other ranks have noted; the first thing in `after_step`."""
        self.counted.copy_(ranks.data().all_reduce_no_grad(self.counted))

    @torch.no_grad()
    def after_step(self) -> None:
        """The end of an optimizer step."""
        self.gather()
        self.learn()

    def learn(self) -> None:
        """From what was noted to the buffers."""
        if self.counted.any():
            began = bool(self.uses.any())
            self.uses.mul_(DECAY if began else 0.0).add_(self.counted, alpha=1 - DECAY if began else 1.0)
        self.forget()

    def perplexity(self) -> float:
        """exp of the entropy of how codes are used, 1 … K; 0 before the first step."""
        share = self.uses.double() / self.uses.double().sum().clamp(min=1e-30)
        return float(torch.exp(-torch.xlogy(share, share).sum())) if self.uses.any() else 0.0

    def dead(self) -> int:
        """How many codes are used less than a hundredth as often as the average one."""
        return int((self.uses < 0.01 * self.uses.mean()).sum()) if self.uses.any() else self.size
