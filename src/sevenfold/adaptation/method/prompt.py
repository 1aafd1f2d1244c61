"""Trainable tokens in front of what a frozen trunk reads, and a new head.

    [P; x_1 … x_n] -> blocks             P [p d]

Lester 2021, arXiv:2104.08691; Jia 2022 (VPT), arXiv:2203.12119 (see the adapter of the same name).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from sevenfold.adaptation._task import names_of
from sevenfold.adaptation.method import Asked
from sevenfold.adaptation.method._tuned import Tuned, head_of
from sevenfold.assembly.adapter.prompt import Prompt as Adapter
from sevenfold.training.recipe import Recipe


class Prompt(Tuned):
    class Config(Tuned.Config):
        tokens: int = Field(8, ge=1, le=4096)
        """How many."""

    rate = 1e-2

    def changed(self, recipe: Recipe, asked: Asked) -> Mapping[str, Any]:
        trunk = names_of(recipe)[0]
        return {"adapter": Adapter.Config(tokens=self.config.tokens, trunks=(trunk,), train=(head_of(recipe),))}
