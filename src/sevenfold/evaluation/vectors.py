"""Frozen representations of items, by a model and by its twin: the same backbone with its first weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sevenfold.assembly.model import Model
from sevenfold.core.seeds import seed_of
from sevenfold.core.types import Batch
from sevenfold.data.collate import collate

BATCH = 64


def twin(model: Model, seed: int) -> Model:
    """The same model with first weights drawn anew."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights at random"))
        return Model(model.config, model.modalities).eval().to(model.device)


def batches(model: Model, raws: Sequence[Mapping[str, Any]]) -> list[Batch]:
    """Items as batches, in their order."""
    return [
        collate(
            [{name: model.modalities[name].tokens(raw) for name, raw in item.items()} for item in raws[at : at + BATCH]]
        )
        for at in range(0, len(raws), BATCH)
    ]


def vectors(model: Model, raws: Sequence[Mapping[str, Any]], how: str, trunk: str | None) -> np.ndarray:
    """[n width]: the pooled representation of each item."""
    found = [row for batch in batches(model, raws) for row in model.embed_batch(batch, how, trunk)]
    return np.stack(found).astype(np.float64)


def token_vectors(model: Model, raws: Sequence[Mapping[str, Any]], trunk: str | None) -> list[np.ndarray]:
    """[n_i width] of each item of one stream: its own tokens, without what stands around them."""
    found = []
    for start in range(0, len(raws), BATCH):
        some = raws[start : start + BATCH]
        for item, rows in zip(some, model.embed_batch(batches(model, some)[0], "none", trunk)):
            before, behind = around(model, item)
            found.append(rows[before : len(rows) - behind])
    return found


def around(model: Model, item: Mapping[str, Any]) -> tuple[int, int]:
    """How many tokens stand before and behind an item of one stream, that are none of its own."""
    before, behind = model.modalities[next(iter(item))].around()
    return len(before), len(behind)
