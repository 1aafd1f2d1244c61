"""Initialisation: what is done to a whole model's first weights, and how fast each of them learns.

The contract of this room. Parts fill their own parameters by their rules (sevenfold.core.initial); a scheme sees the model
that came of it, once, and rescales by place: `apply(model)` changes first weights in place, and gives the factors of the
learning rate that go with them.
"""

from __future__ import annotations

from typing import Any

import torch

from sevenfold.core import part


class Initialisation(part.Part):
    """A scheme for the first weights of a model."""

    room = "initialisation"

    class Config(part.Config):
        pass

    def __init__(self, config: Any):
        self.config = config

    def apply(self, model: Any) -> dict[str, float]:
        """Change the model's first weights in place → parameter → factor of its learning rate under Adam, where not 1.

        Nothing is drawn: the same weights and config give the same. What it sets beside weights (factors of scores or of
        heads) is set anew whenever a model of this config is built, so that weights from a file can follow.
        """
        raise NotImplementedError


@torch.no_grad()
def scale_outputs(model: Any) -> None:
    """The last projections of each branch times 1/sqrt(branches in the trunk): the stream keeps its size at any depth."""
    for trunk in model.trunks.values():
        branches = [outputs for block in trunk.blocks for outputs in block.outputs()]
        for outputs in branches:
            for out in outputs:
                out.weight.mul_(len(branches) ** -0.5)
