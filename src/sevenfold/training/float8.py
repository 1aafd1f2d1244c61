"""Blocks whose linear layers multiply 8-bit numbers in training (train.precision: fp8; sevenfold.blocks.projection._float8)."""

from __future__ import annotations

from typing import Any

from sevenfold.assembly.model import Model
from sevenfold.core.errors import ConfigError


def float8_blocks(model: Model) -> None:
    """From now on; layers with a side that is no multiple of 16 stay in bf16. ConfigError if those are all."""
    parts: list[Any] = [part for trunk in model.trunks.values() for part in trunk.blocks.modules()]
    done = [part.to_float8() for part in parts if hasattr(type(part), "to_float8")]
    if not any(done):
        raise ConfigError(
            "train.precision: fp8 needs linear layers in blocks with sides that are multiples of 16: change the widths, or say bf16"
        )
