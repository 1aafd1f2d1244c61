"""Beginning a run from the weights of another, or of a published model; nothing is left out in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sevenfold.assembly.adapter import merged
from sevenfold.assembly.model import Model
from sevenfold.core import notation, part
from sevenfold.core.errors import ConfigError
from sevenfold.core.files import read_json
from sevenfold.data.source import Source
from sevenfold.exchange.hub import folder_of
from sevenfold.exchange.load import load_published
from sevenfold.exchange.origin import family_of, is_published, recorded
from sevenfold.family import OBJECTIVE, Family
from sevenfold.modality import Modality
from sevenfold.objective import Objective
from sevenfold.training import checkpoint
from sevenfold.training.load import load
from sevenfold.training.wiring import wiring_of


class Start(NamedTuple):
    """The model that a run begins from, and what its objective held."""

    name: str
    model: Model
    objective: dict[str, Tensor]

    def knows(self, stream: str, config: Modality.Config) -> bool:
        """Whether its tokenizer is the one that a stream asks for."""
        own = self.model.config.streams.get(stream)
        ready = own is not None and self.model.modalities[stream].tokenizer.ready
        return ready and own is not None and own.tokenizer == config.tokenizer

    def give(self, model: Model, objective: Objective, note: Callable[[str], None]) -> None:
        """Put its weights into a model and an objective. Heads and trunks that one of them does not have are said; a tensor of
        another shape, or one that is missing in a trunk that both have, is a ConfigError."""
        given = self.model if self.model.config.adapter == model.config.adapter else merged(self.model)
        theirs, ours = given.state_dict(), model.state_dict()
        added = {} if given.adapter else {name: ours.pop(name) for name in model.adapted}
        fresh, left = _places(ours.keys() - theirs.keys()), _places(theirs.keys() - ours.keys())
        for place, names in fresh.items():
            if any(name.startswith(f"{place}.") for name in theirs):
                raise ConfigError(f"start: {self.name} has no {names[0]!r}: {place} is wired otherwise there")
        for place, names in left.items():
            if any(name.startswith(f"{place}.") for name in ours):
                raise ConfigError(f"start: {self.name} has {names[0]!r}, which {place} of the recipe has no place for")
        with torch.no_grad():
            for name in ours.keys() & theirs.keys():
                if ours[name].shape != theirs[name].shape:
                    raise ConfigError(
                        f"start: {name} has shape {list(theirs[name].shape)} in {self.name}, and {list(ours[name].shape)} as the "
                        "recipe says"
                    )
                ours[name].copy_(theirs[name])
            held = {name: value for name, value in objective.named_parameters() if not name.startswith("model.")}
            kept = [name for name in held if name in self.objective and self.objective[name].shape == held[name].shape]
            for name in kept:
                held[name].copy_(self.objective[name])
        model.luggage, model.published = dict(self.model.luggage), dict(self.model.published)
        told = [f"begins from {self.name}: {len(ours.keys() & theirs.keys()):,} tensors"]
        told += [f"of its objective: {', '.join(kept)}"] if kept else []
        told += [f"its {self.model.adapter.kind} merged"] if self.model.adapter and given is not self.model else []
        told += [f"new: {', '.join(fresh)}"] if fresh else []
        if model.adapter is not None and added:
            told.append(f"new: {sum(value.numel() for value in added.values()):,} numbers of {model.adapter.kind}")
        told += [f"left out: {', '.join(left)}"] if left else []
        note("; ".join(told))


def _places(names: Any) -> dict[str, list[str]]:
    """Tensors by the head or trunk that they are in."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault(".".join(name.split(".")[:2]), []).append(name)
    return found


def begun_from(name: str) -> Start:
    """What `start` names, loaded."""
    folder = folder_of(name)
    model = load_published(name) if is_published(folder) else load(folder)  # an id stays the name of where it is from
    path = folder / "objective.safetensors"
    own = checkpoint.tensors(path) if path.is_file() else {}
    own |= {key.removeprefix(OBJECTIVE): value for key, value in model.luggage.items() if key.startswith(OBJECTIVE)}
    return Start(name, model, own)


LENGTH = 256
"""Tokens of an item or window, where a model takes more: longer ones cost more than a small budget has."""
RATE = 1e-4
"""AdamW's learning rate for weights that have learned already."""


def going_on(start: str, data: Source.Config, reasons: list[str] | None = None) -> dict[str, Any]:
    """A recipe, as plain data, that goes on training what `start` names on other data, by the objective that it learned by.

    ConfigError for a model that does not say by which.
    """
    reasons = reasons if reasons is not None else []
    wiring, objective = wiring_of(start), objective_of(start)
    reasons.append(f"continues {start} by {objective['kind']}, with a small learning rate ({RATE:g})")
    streams = {}
    for name, stream in wiring.streams.items():
        if stream.length is not None and stream.length > LENGTH and stream.build().tokenizer.axes == 1:
            streams[name] = {"length": LENGTH}
            reasons.append(f"{name}: items of {LENGTH} tokens (the model takes {stream.length}: streams.{name}.length)")
    train = {"batch": 16, "optimizer": {"kind": "adamw", "lr": RATE}, "evaluate_batches": 2}
    return {"data": part.encode(data), "start": start, "streams": streams, "objective": objective, "train": train}


def objective_of(start: str) -> dict[str, Any]:
    """How a model learned: as its recipe says, or its family."""
    folder = folder_of(start)
    if (folder / "recipe.yaml").is_file():
        return dict(notation.read(folder / "recipe.yaml")["objective"])
    config = read_json(folder / "config.json")
    published = config if is_published(folder) else config.get("published", {}).get("config")
    found = dict(family_of(published).objective) if published else {}
    if not found:
        raise ConfigError(
            f"{start}: does not say how it is to go on learning: write a recipe with `start: {start}` and an objective"
        )
    return found


def record_for(config: Family.Config, modalities: Mapping[str, Modality]) -> dict[str, Any]:
    """The published record of a model of a family that begins here: its config, with the ids of its tokenizer."""
    published = config.build().published()
    sized = [m.tokenizer for m in modalities.values() if m.tokenizer.size is not None and m.tokenizer.axes == 1]
    if len(sized) == 1:
        tokenizer = sized[0]
        inner = published["text_config"] if "vocab_size" not in published and "text_config" in published else published
        if "vocab_size" in inner:
            inner["vocab_size"] = tokenizer.size
        inner |= {f"{name}_token_id": tokenizer.specials.get(name) for name in ("bos", "eos", "pad")}
    return recorded(published)
