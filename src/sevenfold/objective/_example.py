"""The small recipe of pictures on which objectives are checked."""

from __future__ import annotations

from typing import Any


def of_pictures(objective: dict[str, Any], reader: str | None = None) -> dict[str, Any]:
    """A recipe of digits with one encoder, `enc`, and a narrower trunk that reads it, if it has a name."""
    trunks = {"enc": {"inputs": ["image"], "width": 32, "depth": 1, "position": "axial_rotary"}}
    if reader is not None:
        trunks[reader] = {"inputs": ["enc"], "width": 24, "depth": 1, "position": "axial_rotary"}
    return {
        "data": {"kind": "digits", "limit": 48},
        "streams": {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}}},
        "trunks": trunks,
        "objective": objective,
    }
