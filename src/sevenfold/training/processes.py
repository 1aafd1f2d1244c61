"""A run among several processes: what they must have in common before it begins, and the whole of its weights at the end."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from sevenfold.assembly.spread import check_spread
from sevenfold.core import part, ranks
from sevenfold.core.errors import ConfigError
from sevenfold.training.parallel.gradients import whole_state
from sevenfold.training.parallel.tensor import to_cut
from sevenfold.training.prepare import Ready, prepare
from sevenfold.training.recipe import Recipe


def check_shared(given: Recipe, ready: Ready) -> None:
    """ConfigError where these processes cannot share the work as the recipe says."""
    mesh = ranks.mesh()
    if not mesh.sequence.alone:
        check_spread(ready.model)
    if not mesh.tensor.alone:
        to_cut(ready.objective, mesh.tensor.size)
    if given.parallel.shard and not mesh.every.alone and given.data.partly:
        raise ConfigError(
            "parallel.shard: processes ask for weights together, so each must have something to learn from in every step: "
            "not with data.partly"
        )


def check_alike(ready: Ready) -> None:
    """ConfigError where processes do not begin with the same weights: they read other data, or on another kind of machine."""
    every = ranks.mesh().every
    if every.alone:
        return
    digest = hashlib.sha256(json.dumps(part.encode(ready.recipe), sort_keys=True).encode())
    for name, value in sorted(ready.objective.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    said = every.gather_objects(digest.hexdigest())
    other = next((rank for rank, found in enumerate(said) if found != said[0]), None)
    if other is not None:
        raise ConfigError(
            f"process {other} does not begin as the first one does: do all see the same data, with the same versions installed?"
        )


def gathered(ready: Ready, folder: Path) -> Ready:
    """A trained run of which each process has a part of the weights, with all of them on each."""
    state = whole_state(ready.objective)
    again = prepare(ready.recipe, tokenizers=folder)
    again.objective.load_state_dict(state)
    return again._replace(bad=ready.bad)
