"""Two-tower models: what a tower makes of raw items, as vectors of length 1 in the space that both share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from sevenfold.assembly.model import Model, to_device
from sevenfold.assembly.pool import pool
from sevenfold.assembly.prompt import reads
from sevenfold.core.errors import ConfigError


class Tower(NamedTuple):
    """A trunk with a head into the shared space (None: its tokens are pooled by the mean), and the stream that it reads."""

    trunk: str
    stream: str
    head: str | None


def towers_of(model: Model) -> tuple[Tower, Tower]:
    """The two towers of a model that learned by contrast. ConfigError for one that has not two."""
    found = [
        Tower(head.trunk, reads(model, head.trunk)[0], name)
        for name, head in model.config.heads.items()
        if head.stream is None and head.pool != "none" and any(s in model.config.streams for s in model.config.trunks[head.trunk].inputs)
    ]  # fmt: skip
    sizes = {model.heads[tower.head or ""].outputs for tower in found}
    if len(found) != 2 or len(sizes) != 1 or found[0].trunk == found[1].trunk:
        raise ConfigError(
            f"this needs a model of two towers, that learned by contrast (infonce, sigmoid); this one has the heads "
            f"{', '.join(model.config.heads) or 'none'}"
        )
    return found[0], found[1]


@torch.inference_mode()
def towered(model: Model, tower: Tower, raws: Sequence[Any], size: int = 64) -> np.ndarray:
    """Raw items of the tower's stream → [n d], each of length 1."""
    names = list(model.trunks.keys())
    place = names.index(tower.trunk) + 1
    stop = names[place] if place < len(names) else None
    found = []
    for start in range(0, len(raws), size):
        batch = to_device(model.tokenize([{tower.stream: raw} for raw in raws[start : start + size]]), model.device)
        hidden = model.earlier(batch, stop)[tower.trunk]
        how = "mean" if tower.head is None else model.config.heads[tower.head].pool
        x = pool(hidden, how)
        x = x if tower.head is None else model.head(tower.head, x)
        found.append(F.normalize(x.double(), dim=-1).cpu().numpy())
    return np.concatenate(found) if found else np.zeros((0, 1))
