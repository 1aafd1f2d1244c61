"""Objectives of two trunks: one that sees a part of the tokens, and a light one that says what the others are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sevenfold.assembly.model import ModelConfig
from sevenfold.core.errors import ConfigError
from sevenfold.objective import the_trunk


def two_trunks(config: Any, model: ModelConfig, first: str, second: str) -> tuple[str, str]:
    """The trunks that two fields of an objective name (encoder and decoder, say): by default the model's first and last."""
    names = list(model.trunks)
    return (
        the_trunk(model, getattr(config, first) or names[0], first),
        the_trunk(model, getattr(config, second) or names[-1], second),
    )


def check_dropping(kind: str, model: ModelConfig, first: str, second: str) -> None:
    """ConfigError unless the second trunk reads the first and both can do without some of the tokens."""
    if second == first or first not in model.trunks[second].inputs:
        raise ConfigError(f"objective: {kind} needs a second trunk that reads the first: inputs: [{first}]")
    for name in (first, second):
        trunk = model.trunks[name]
        if trunk.mask.causal:
            raise ConfigError(f"objective: {kind} needs both sides: set trunks.{name}.mask.causal to false")
        if trunk.condition is not None:
            raise ConfigError(f"objective: {kind} reads no condition: take trunks.{name}.condition out")
        if trunk.index:
            raise ConfigError(
                f"objective: {kind} drops tokens, so trunks.{name} must use their own coordinates: index: false"
            )


def streams_of(model: ModelConfig, trunk: str) -> Sequence[str]:
    """The streams among the inputs of a trunk."""
    return [name for name in model.trunks[trunk].inputs if name in model.streams]
