"""Atoms of a SMILES string exchanged for the atom of any kind, `*`.

    y_i = * for an atom i with probability p;   bonds, rings and branches stay

Wang 2022 (MolCLR), doi:10.1038/s42256-022-00447-x, Methods: atom masking. `*` is the unspecified atom of OpenSMILES.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.data.view import View
from sevenfold.data.view._items import letters_of

ATOM = re.compile(r"\[[^\[\]]+\]|Br|Cl|[BCNOPSFI]|[bcnops]")


class MaskAtoms(View):
    """str → str."""

    class Config(View.Config):
        rate: float = Field(0.25, ge=0, le=1)
        """p, the share of atoms that are hidden."""

    modalities = ("molecule",)

    def __call__(self, raw: Any, generator: np.random.Generator) -> str:
        text, rate = letters_of(self, raw, "molecules"), self.config.rate
        return ATOM.sub(lambda found: "*" if generator.random() < rate else found[0], text)
