"""A new head on frozen trunks, trained by gradient: what `probe` finds by convex optimisation, for data too large for that.

    only W and b of softmax(W z + b) learn

Donahue 2013, arXiv:1310.1531.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sevenfold.adaptation.method import Asked
from sevenfold.adaptation.method._tuned import Tuned
from sevenfold.training.recipe import Recipe


class Frozen(Tuned):
    rate = 1e-2

    def changed(self, recipe: Recipe, asked: Asked) -> Mapping[str, Any]:
        return {"trunks": {name: trunk.replace(frozen=True) for name, trunk in recipe.trunks.items()}}
