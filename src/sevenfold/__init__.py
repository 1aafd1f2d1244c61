"""sevenfold: from a file of data of any kind to a foundation model.

    import sevenfold as sf

    run = sf.train("recipes/gpt.yaml", out="runs/gpt")      # or sf.pretrain("speech.txt", minutes=5)
    model = sf.load("runs/gpt")
    model.embed(["some text"]);  model.generate("Once upon")

Importing it is quick: what is heavy is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "train": "sevenfold.training.run",
    "load": "sevenfold.training.run",
    "Run": "sevenfold.training.run",
    "fit": "sevenfold.training.fit",
    "Recipe": "sevenfold.training.recipe",
    "read_recipe": "sevenfold.training.recipe",
    "Model": "sevenfold.assembly.model",
    "SevenfoldError": "sevenfold.core.errors",
}
"""Name → the module that defines it."""

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from sevenfold.assembly.model import Model
    from sevenfold.core.errors import SevenfoldError
    from sevenfold.training.fit import fit
    from sevenfold.training.recipe import Recipe, read_recipe
    from sevenfold.training.run import Run, load, train


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'sevenfold' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
