"""Blocks that are computed again in the backward pass, instead of keeping what is inside of them (gradient checkpointing).

Chen 2016, arXiv:1604.06174. Of each block only what goes into it is kept; dropout draws the same numbers again, so gradients are those
without it, bit for bit. It costs one more forward pass of the blocks.
"""

from __future__ import annotations

from sevenfold.assembly.model import Model
from sevenfold.core.errors import ConfigError


def recompute_blocks(model: Model) -> None:
    """From now on. ConfigError for a block that counts what it has seen, since it would count twice."""
    for name, trunk in model.trunks.items():
        for place, module in trunk.blocks.named_modules():
            if getattr(module, "across", False):
                raise ConfigError(
                    f"train.recompute: the norm trunks.{name}.blocks.{place} keeps statistics, and would see every batch twice: "
                    "choose the norm layer, rms or group, or recompute: false"
                )
        trunk.recompute = True
