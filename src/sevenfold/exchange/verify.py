"""A conversion held against the reference implementation: the same inputs through both, compared layer by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sevenfold.assembly.model import Model
from sevenfold.assembly.pieces import moved, reading_order
from sevenfold.core.errors import CheckpointError, need_extra
from sevenfold.core.types import Batch, Hidden
from sevenfold.family import Family


@torch.no_grad()
def verify(folder: Path, model: Model, family: Family) -> dict[str, list[float]]:
    """Trunk → the largest absolute difference of the stream before and after each block, between `model` and what
    `transformers` makes of the published folder, in float32, on random inputs. The last is taken after the final norm where the
    reference's is. MissingExtra without `transformers`."""
    reference = _reference(folder, need=str(folder))
    batch, inputs = family.trial(model)
    was = {name: parameter.dtype for name, parameter in model.named_parameters()}
    model.float()
    try:
        ours = _streams(model, batch)
    finally:
        for name, parameter in model.named_parameters():
            parameter.data = parameter.data.to(was[name])
    theirs = reference(**inputs, output_hidden_states=True, return_dict=True)
    found = {}
    for trunk, where in family.states.items():
        states: Any = theirs
        for step in where.split("."):
            states = getattr(states, step)
        states = [family.compared(state, batch) for state in states]
        seen, last = [family.compared(x, batch) for x in ours[trunk][0]], family.compared(ours[trunk][1], batch)
        away = [_away(mine, their) for mine, their in zip(seen[family.first_state :], states[:-1])]
        found[trunk] = [*away, min(_away(seen[-1], states[-1]), _away(last, states[-1]))]
    return found


def _reference(folder: Path, need: str) -> Any:
    """The reference model of a published folder."""
    try:
        import transformers
    except ImportError as error:
        need_extra("transformers", "verify", error)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = (config.get("architectures") or [None])[0]
    made = getattr(transformers, str(named), None) or transformers.AutoModel
    try:
        return made.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{need}: transformers cannot load it: {str(error).strip().splitlines()[0]}") from None


def _streams(model: Model, batch: Batch) -> dict[str, tuple[list[Tensor], Tensor]]:
    """Trunk → (the stream before its first and after every block, what it gives)."""
    seen: dict[str, list[Tensor]] = {name: [] for name in model.trunks}
    hooks = []
    for name, trunk in model.trunks.items():
        for place, block in enumerate(trunk.blocks):
            if place == 0:
                hooks.append(block.register_forward_pre_hook(lambda _, given, name=name: seen[name].append(given[0].x)))
            hooks.append(block.register_forward_hook(lambda _, __, made, name=name: seen[name].append(made.x)))
    try:
        done = model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _as_read(seen[name], done[name]) for name in done}


def _as_read(seen: list[Tensor], done: Hidden) -> tuple[list[Tensor], Tensor]:
    """Both with the tokens as the blocks had them, where something is spliced in: placeholders, which stand last, are no
    tokens of the reference."""
    if done.places is None or done.valid is None:
        return seen, done.x
    read = int(done.valid.sum(1).max())
    return [x[:, :read] for x in seen], moved(done, reading_order(done)).x[:, :read]


def _away(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference; infinite where shapes differ."""
    return float((ours - theirs).abs().max()) if ours.shape == theirs.shape else float("inf")
