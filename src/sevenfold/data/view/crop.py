"""A piece of a sequence, from a random place.

    y = x[a : a + length],  a ~ U{0 ... n - length};  all of it if it is not longer

Training windows of DNA, protein and text models (ESM-2, HyenaDNA).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.errors import ConfigError
from sevenfold.data.view import View


class Crop(View):
    """str → str of at most `length` letters."""

    class Config(View.Config):
        length: int = Field(512, ge=1)
        """Letters that are kept."""

    def __call__(self, raw: Any, generator: np.random.Generator) -> str:
        if not isinstance(raw, str):
            raise ConfigError(
                f"the crop view cuts sequences of letters, not {type(raw).__name__}: take it out of views"
            )
        start = int(generator.integers(0, max(0, len(raw) - self.config.length), endpoint=True))
        return raw[start : start + self.config.length]
