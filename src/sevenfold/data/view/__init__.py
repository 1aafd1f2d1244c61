"""A view: a random change to a raw item (a shift, a crop) that keeps what it is. Deterministic given the generator."""

from __future__ import annotations

from typing import Any

import numpy as np

from sevenfold.core import part


class View(part.Part):
    """view(raw, generator) → raw of the same form."""

    room = "view"

    class Config(part.Config):
        pass

    def __init__(self, config: Any):
        self.config = config

    def __call__(self, raw: Any, generator: np.random.Generator) -> Any:
        raise NotImplementedError
