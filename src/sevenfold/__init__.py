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

from sevenfold.core.version import __version__

_HOME = {
    "train": "sevenfold.training.run:train",
    "pretrain": "sevenfold.training.pretrain:pretrain",
    "plan": "sevenfold.training.plan:plan",
    "load": "sevenfold.training.load:load",
    "load_published": "sevenfold.exchange.load:load_published",
    "publish": "sevenfold.exchange.publish:publish",
    "convert": "sevenfold.training.convert:convert",
    "adapt": "sevenfold.adaptation.adapt:adapt",
    "predict": "sevenfold.adaptation.predict:predict",
    "extend_vocabulary": "sevenfold.adaptation.vocabulary:extend_vocabulary",
    "evaluate": "sevenfold.evaluation.evaluate:evaluate",
    "recognise": "sevenfold.data.recognise:recognise",
    "survey": "sevenfold.data.recognise:survey",
    "Run": "sevenfold.training.run:Run",
    "Model": "sevenfold.assembly.model:Model",
    "Recipe": "sevenfold.training.recipe:Recipe",
    "read_recipe": "sevenfold.training.recipe:read_recipe",
    "prepare": "sevenfold.training.prepare:prepare",
    "prepare_data": "sevenfold.training.prepare_data:prepare_data",
    "fit": "sevenfold.training.fit:fit",
    "tokens": "sevenfold.explain.lab:tokens",
    "SevenfoldError": "sevenfold.core.errors:SevenfoldError",
}
"""Name → where it is defined, module:name."""

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from sevenfold.adaptation.adapt import adapt
    from sevenfold.adaptation.predict import predict
    from sevenfold.adaptation.vocabulary import extend_vocabulary
    from sevenfold.assembly.model import Model
    from sevenfold.core.errors import SevenfoldError
    from sevenfold.data.recognise import recognise, survey
    from sevenfold.evaluation.evaluate import evaluate
    from sevenfold.exchange.load import load_published
    from sevenfold.exchange.publish import publish
    from sevenfold.explain.lab import tokens
    from sevenfold.training.convert import convert
    from sevenfold.training.fit import fit
    from sevenfold.training.load import load
    from sevenfold.training.plan import plan
    from sevenfold.training.prepare import prepare
    from sevenfold.training.prepare_data import prepare_data
    from sevenfold.training.pretrain import pretrain
    from sevenfold.training.recipe import Recipe, read_recipe
    from sevenfold.training.run import Run, train


def __getattr__(name: str) -> Any:
    if name in _HOME:
        module, _, attribute = _HOME[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'sevenfold' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
