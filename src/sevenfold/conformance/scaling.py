"""What every scaling of rotary frequencies must do: see the contract in sevenfold.blocks.position.scaling."""

from __future__ import annotations

from typing import Any

import torch

from sevenfold.blocks.position.scaling import plain
from sevenfold.conformance._kit import expect, near

PAIRS, BASE = 32, 10000.0


def check_frequencies(config: Any) -> None:
    """One positive float64 frequency per pair, falling, none higher than before, none lower than before by more than the
    whole stretch; a factor on cos and sin of 1 or a little more."""
    found, factor = config.build().frequencies(PAIRS, BASE)
    before = plain(PAIRS, BASE)
    expect(found.shape == (PAIRS,) and found.dtype == torch.float64, f"gives {found.dtype} {list(found.shape)}")
    expect((found > 0).all() and (found.diff() < 0).all(), "frequencies do not fall")
    expect((found <= before * (1 + 1e-12)).all(), "a frequency is raised")
    expect(1 <= factor < 2, f"the factor on cos and sin is {factor}")


def check_no_stretch(config: Any) -> None:
    """Stretched by 1, nothing changes."""
    changes = {"factor": 1.0, **({"length": None} if "length" in type(config).model_fields else {})}
    found, factor = config.replace(**changes).build().frequencies(PAIRS, BASE)
    near(found, plain(PAIRS, BASE), "the frequencies with factor 1")
    expect(factor == 1, f"the factor on cos and sin is {factor}")
