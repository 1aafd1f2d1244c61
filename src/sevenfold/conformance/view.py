"""What every view must do: see the contract in sevenfold.data.view."""

from __future__ import annotations

from typing import Any

import numpy as np

from sevenfold.conformance._kit import expect
from sevenfold.conformance.tokenization import same
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds
from sevenfold.core.seeds import numpy_generator


def check_view(config: Any) -> None:
    """An item that some modality takes becomes another that it takes, by the generator alone; the item is left alone."""
    view, taken = config.build(), 0
    for kind in kinds("modality"):
        part = find("modality", kind)
        modality = part.Config().build()
        for raw in map(modality.check, part.example(0)):
            before = raw.copy() if isinstance(raw, np.ndarray) else raw
            try:
                first, second = (view(raw, numpy_generator("view", 1)) for _ in range(2))
            except ConfigError as error:
                expect("\n" not in str(error), f"a refusal of more than one line: {error}")
                break
            taken += 1
            expect(same(first, second), "the same generator gives something else")
            expect(same(raw, before), "the item that was given is changed")
            expect(type(first) is type(raw), f"a {type(raw).__name__} becomes a {type(first).__name__}")
            modality.check(first)
    expect(taken, "takes the items of no modality")
