"""Rotary settings as published: `rope_parameters`, or the older `rope_theta` beside `rope_scaling`, and ours from them.

    {rope_type: llama3, rope_theta: 5e5, factor: 8, …}  ->  {kind: rotary, base: 5e5, scaling: {kind: llama3, factor: 8, …}}

What depends on how long the text at hand is (`dynamic` beyond the trained length, `longrope` with two lists) is refused, or
as it is at the lengths that the model says it is for: keys that were turned once stay right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from sevenfold.core import part

Kind = Literal["default", "linear", "dynamic", "llama3", "yarn", "longrope"]


class Rope(part.Config):
    """One published record of rotary settings; what is not said is None."""

    rope_type: Kind | None = None
    """How frequencies are scaled; by default not at all."""
    type: Kind | None = None
    """The same, in its older name."""
    rope_theta: float | None = Field(None, gt=1)
    """The base."""
    factor: float | None = Field(None, ge=1)
    """How many times longer than in training."""
    original_max_position_embeddings: int | None = Field(None, ge=2)
    """The length of training."""
    low_freq_factor: float | None = Field(None, gt=0)
    """llama3: turns up to which a frequency is divided."""
    high_freq_factor: float | None = Field(None, gt=0)
    """llama3: turns from which a frequency is kept."""
    beta_fast: float | None = Field(None, gt=0)
    """yarn: turns from which a frequency is kept."""
    beta_slow: float | None = Field(None, gt=0)
    """yarn: turns up to which a frequency is divided."""
    truncate: bool | None = None
    """yarn: the ramp begins and ends at whole channels."""
    attention_factor: float | None = Field(None, gt=0)
    """yarn, longrope: what cos and sin are multiplied by."""
    mscale: float | None = None
    """yarn: with mscale_all_dim, another way to say attention_factor."""
    mscale_all_dim: float | None = None
    """yarn: see mscale."""
    short_factor: tuple[float, ...] | None = None
    """longrope: what frequencies are divided by in texts no longer than in training."""
    long_factor: tuple[float, ...] | None = None
    """longrope: what frequencies are divided by in longer texts."""
    partial_rotary_factor: float | None = Field(None, ge=1, le=1)
    """Whole heads are turned."""


class RotaryConfig(part.Config):
    """What a published config says of its rotary positions."""

    max_position_embeddings: int = Field(2048, ge=1, le=1 << 24)
    """Tokens that a text has at most."""
    rope_parameters: Rope | None = None
    """The rotary settings."""
    rope_theta: float | None = Field(None, gt=1)
    """The base, where the settings do not say it (older files)."""
    rope_scaling: Rope | None = None
    """The rotary settings of older files."""
    original_max_position_embeddings: int | None = Field(None, ge=2)
    """The length of training, instead of what the settings say."""
    partial_rotary_factor: float | None = Field(None, ge=1, le=1)
    """Whole heads are turned."""

    default_rope: ClassVar[Mapping[str, Any]] = {}
    """The rotary settings of a config that says nothing of them."""

    @model_validator(mode="after")
    def _rotary(self) -> RotaryConfig:
        rotary(self)
        return self


def rotary(config: RotaryConfig) -> dict[str, Any]:
    """The position of a trunk. ValueError for settings that ours cannot have."""
    rope = config.rope_scaling or config.rope_parameters or Rope(**config.default_rope)
    base = rope.rope_theta or config.rope_theta or config.default_rope.get("rope_theta", 10000.0)
    kind = rope.rope_type or rope.type or "default"
    scaling = SCALINGS[kind](rope, config)
    if scaling is not None and scaling.get("factor") is None:
        raise ValueError(f"rope_parameters: {kind!r} needs a factor")
    return {"kind": "rotary", "base": base, "scaling": scaling}


def said(config: RotaryConfig, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The published fields, without rotary settings that were not given."""
    found = dict(fields)
    for name in RotaryConfig.model_fields:
        if getattr(config, name) is None:
            del found[name]
        elif isinstance(found[name], dict):
            found[name] = {key: value for key, value in found[name].items() if value is not None}
    return found


def _trained(rope: Rope, config: RotaryConfig) -> int:
    return (
        config.original_max_position_embeddings
        or rope.original_max_position_embeddings
        or config.max_position_embeddings
    )


def _stretch(rope: Rope, config: RotaryConfig) -> float:
    """The factor, or how much longer the model's texts are than those of training."""
    return rope.factor or max(config.max_position_embeddings / _trained(rope, config), 1.0)


def _dynamic(rope: Rope, config: RotaryConfig) -> dict[str, Any]:
    longest = config.max_position_embeddings
    return {"kind": "ntk", "factor": rope.factor, "trained": longest, "length": longest}


def _llama3(rope: Rope, config: RotaryConfig) -> dict[str, Any]:
    low, high = rope.low_freq_factor, rope.high_freq_factor
    if low is None or high is None or low >= high:
        raise ValueError("rope_parameters: 'llama3' needs a low_freq_factor, and a larger high_freq_factor")
    return {"kind": "llama3", "factor": rope.factor, "trained": _trained(rope, config), "low": low, "high": high}


def _yarn(rope: Rope, config: RotaryConfig) -> dict[str, Any]:
    factor, sharper = _stretch(rope, config), rope.attention_factor
    if sharper is None and rope.mscale and rope.mscale_all_dim:
        grown = 0.1 * math.log(factor)
        sharper = (grown * rope.mscale + 1) / (grown * rope.mscale_all_dim + 1)
    return {
        "kind": "yarn",
        "factor": factor,
        "trained": _trained(rope, config),
        "fast": rope.beta_fast or 32.0,
        "slow": rope.beta_slow or 1.0,
        "whole": rope.truncate is not False,
        "sharper": sharper,
    }


def _longrope(rope: Rope, config: RotaryConfig) -> dict[str, Any]:
    trained = _trained(rope, config)
    if rope.short_factor is None or rope.long_factor is None:
        raise ValueError("rope_parameters: 'longrope' needs a short_factor and a long_factor")
    if rope.short_factor != rope.long_factor and config.max_position_embeddings > trained:
        raise ValueError(
            "rope_parameters: 'longrope' with two lists turns a text by its length, so that no key can be kept: for short "
            f"texts only, set max_position_embeddings to {trained}; for long ones, set short_factor to long_factor"
        )
    return {
        "kind": "longrope",
        "factor": _stretch(rope, config),
        "factors": rope.short_factor,
        "trained": trained,
        "sharper": rope.attention_factor,
    }


SCALINGS: dict[str, Callable[[Rope, RotaryConfig], dict[str, Any] | None]] = {
    "default": lambda rope, config: None,
    "linear": lambda rope, config: {"kind": "linear", "factor": rope.factor},
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
"""Published rope_type → our scaling."""
