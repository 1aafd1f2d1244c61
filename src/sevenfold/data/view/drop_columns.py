"""Some cells of a row are missing.

    y_c = missing (None) with probability p, otherwise x_c;   at least one cell that is known stays

For rows of tables. SCARF (Bahri 2021, arXiv:2106.15147) puts values of other rows there instead, which a view of one row cannot
know.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.data.view import View


class DropColumns(View):
    """dict from column to word, number or None → the same columns."""

    class Config(View.Config):
        rate: float = Field(0.3, ge=0, lt=1)
        """p, the share of cells that are missing."""

    modalities = ("table",)

    def __call__(self, raw: Any, generator: np.random.Generator) -> dict[str, Any]:
        if not isinstance(raw, dict):
            raise self.refusal("rows of tables", raw)
        gone = (generator.random(len(raw)) < self.config.rate).tolist()
        known = [place for place, value in enumerate(raw.values()) if value is not None]
        if known and all(gone[place] for place in known):
            gone[known[int(generator.integers(len(known)))]] = False
        return {name: None if lost else value for (name, value), lost in zip(raw.items(), gone)}
