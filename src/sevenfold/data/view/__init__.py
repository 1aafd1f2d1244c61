"""A view: a random change to a raw item (a shift, a crop) that keeps what it is. Deterministic given the generator."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from sevenfold.core import part
from sevenfold.core.errors import ConfigError


class View(part.Part):
    """view(raw, generator) → raw of the same form; the item that is given is left alone."""

    room = "view"
    modalities: ClassVar[tuple[str, ...]] = ()
    """Kinds of modality whose items it changes, and those that are built on them. None named: all whose items it does not
    refuse itself."""

    class Config(part.Config):
        pass

    def __init__(self, config: Any):
        self.config = config

    def __call__(self, raw: Any, generator: np.random.Generator) -> Any:
        """Numbers may leave the range that their kind has (a sound's is -1…1): the modality brings them back into it
        (`within`). ConfigError, one line, for an item that it cannot change."""
        raise NotImplementedError

    def refusal(self, what: str, raw: Any) -> ConfigError:
        """That it changes `what`, and not such an item."""
        return ConfigError(f"the {self.kind} view changes {what}, not {named(raw)}: take it out of views")


def named(raw: Any) -> str:
    """A raw item by its type, an array also by its shape."""
    return f"an array {list(raw.shape)}" if isinstance(raw, np.ndarray) else type(raw).__name__
