"""Adapters: a few new numbers in a model whose own weights stay as they are.

The contract of this room. An adapter is named in a model's config (`adapter: {kind: lora}`), so a run folder with one loads by
itself. `put` adds parameters to a model that is built and has its first weights; it changes no name and no number of what
is there, and at the start no output (an adapter that stands in front of tokens may). Everything else of the model is
frozen, but for what `train` names: a new head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import torch
from torch import Tensor

from sevenfold.core import part
from sevenfold.core.errors import ConfigError, did_you_mean


class Adapter(part.Part):
    """New parameters in a model."""

    room = "adapter"

    class Config(part.Config):
        trunks: tuple[str, ...] = ()
        """The trunks that it is put into; by default all that read something."""
        train: tuple[str, ...] = ()
        """What else is trained: names of parameters, as patterns (`heads.label.*`)."""

    merges: ClassVar[bool] = False
    """Whether the weights of the model can take it up, so that nothing is left of it (see `merged`)."""

    def __init__(self, config: Any):
        self.config = config

    def put(self, model: Any, trunks: Mapping[str, Any]) -> None:
        """Add its parameters, with their first values, to these trunks of a model. ConfigError for a name that is not there."""
        raise NotImplementedError

    def idle(self, model: Any) -> list[str]:
        """Where it got no gradient from a backward pass that has just been made: names, as a person would write them."""
        raise NotImplementedError

    def deltas(self, model: Any) -> dict[str, Tensor]:
        """What merging adds: name of a weight of the model → [out in], float64. Only where it `merges`."""
        raise NotImplementedError


def put_in(model: Any, config: Adapter.Config | None) -> tuple[Adapter | None, frozenset[str]]:
    """(the adapter of a config, the names of its tensors), after it was put into a model and all else was frozen."""
    if config is None:
        return None, frozenset()
    before = set(model.state_dict())
    adapter: Adapter = config.build()
    adapter.put(model, chosen_trunks(model, config.trunks))
    names = frozenset(model.state_dict().keys() - before)
    own = [name for name, _ in model.named_parameters()]
    for pattern in config.train:
        if not any(fnmatchcase(name, pattern) for name in own):
            places = {".".join(name.split(".")[:3]) for name in own}
            raise ConfigError(f"adapter.train: no parameter is called {pattern!r}{did_you_mean(pattern, places)}")
    for name, parameter in model.named_parameters():
        also = any(fnmatchcase(name, pattern) for pattern in config.train)
        parameter.requires_grad_(name in names or also)
    return adapter, names


def chosen_trunks(model: Any, names: Sequence[str]) -> dict[str, Any]:
    """The trunks of a model that a config names, or all that read something."""
    for name in names:
        if name not in model.trunks:
            raise ConfigError(f"adapter.trunks: there is no {name!r}{did_you_mean(name, model.trunks)}")
    found = {name: trunk for name, trunk in model.trunks.items() if name in names}
    return found or {name: trunk for name, trunk in model.trunks.items() if trunk.config.inputs}


def need_gradients(model: Any, what: str) -> None:
    """ConfigError, one line, for an adapter some of which got no gradient from a backward pass that has just been made."""
    idle = [] if model.adapter is None else model.adapter.idle(model)
    if idle:
        more = f" (nor {len(idle) - 1} more)" if len(idle) > 1 else ""
        raise ConfigError(
            f"adapter: {idle[0]} gets no gradient from {what}{more}, so it would never learn: leave it out"
        )


@torch.no_grad()
def merged(model: Any) -> Any:
    """A model without an adapter that computes what this one does: W + the adapter's part, added in float64 and rounded once.

    This one stays as it is, adapter and base apart. ConfigError for an adapter that is no part of weights (prompts).
    """
    adapter = model.adapter
    if adapter is None:
        return model
    if not adapter.merges:
        raise ConfigError(f"adapter: {adapter.kind!r} cannot be merged: it is no part of any weight")
    with torch.random.fork_rng(devices=[]):
        plain = type(model)(model.config.replace(adapter=None), model.modalities)
    own, deltas = model.state_dict(), adapter.deltas(model)
    state = {name: value for name, value in own.items() if name not in model.adapted}
    state |= {name: (own[name].double() + delta).to(own[name].dtype) for name, delta in deltas.items()}
    plain.to(model.device, next(model.parameters()).dtype).load_state_dict(state)
    plain.luggage, plain.published = dict(model.luggage), dict(model.published)
    return plain.train(model.training)


@torch.no_grad()
def fold(model: Any) -> None:
    """Add the adapter's part to the weights of the model itself, which then is for reading only; what stands in front of tokens
    is left alone. The base is lost."""
    if model.adapter is not None and model.adapter.merges:
        weights = dict(model.named_parameters())
        for name, delta in model.adapter.deltas(model).items():
            weights[name].copy_(weights[name].double() + delta)


def matching(patterns: Iterable[str], known: Sequence[str], where: str) -> list[str]:
    """Those of known dotted names that a pattern means: the whole name, or its end (`qkv`, `mixer.*`). ConfigError for a
    pattern that means none."""
    found: dict[str, None] = {}
    for pattern in patterns:
        hits = [name for name in known if fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")]
        if not hits:
            ends = {name.rsplit(".", 1)[-1] for name in known} | {".".join(name.split(".")[-2:]) for name in known}
            raise ConfigError(f"{where}: no projection is called {pattern!r}{did_you_mean(pattern, ends)}")
        found |= dict.fromkeys(hits)
    return [name for name in known if name in found]
