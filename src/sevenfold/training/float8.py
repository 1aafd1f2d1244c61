"""Blocks whose linear layers multiply 8-bit numbers in training (train.precision: fp8; sevenfold.blocks.projection._float8)."""

from __future__ import annotations

from sevenfold.assembly.model import Model
from sevenfold.core.errors import ConfigError


def float8_blocks(model: Model) -> None:
    """From now on; layers with a side that is no multiple of 16 stay in bf16. ConfigError if those are all."""
    blocks = [trunk.blocks for trunk in model.trunks.values()]
    asked = [part.to_float8() for block in blocks for part in block.modules() if hasattr(part, "to_float8")]
    if not any(asked):
        raise ConfigError(
            "train.precision: fp8 needs linear layers in blocks with sides that are multiples of 16: change the widths, or say bf16"
        )
