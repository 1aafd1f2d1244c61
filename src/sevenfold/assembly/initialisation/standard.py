"""The usual first weights: each part's own, and the end of every branch scaled down with depth.

    out <- out / sqrt(branches in the trunk)                 branches: mixing, cross, feed-forward of every block

Radford 2019 (GPT-2) section 2.3; every parameter learns at the same rate.
"""

from __future__ import annotations

from typing import Any

from sevenfold.assembly.initialisation import Initialisation, scale_outputs


class Standard(Initialisation):
    class Config(Initialisation.Config):
        pass

    def apply(self, model: Any) -> dict[str, float]:
        scale_outputs(model)
        return {}
