"""What objectives that compare looks at an item have in common: which trunk reads, which views are made, what it costs.

An item becomes several streams of a batch, `image.1` and `image.2` for a stream `image`, each by its own draw of the same
views: those of the recipe, or those that the modality declares. Without any, looks differ by dropout alone (Gao 2021, SimCSE,
arXiv:2104.08821).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sevenfold.assembly.cost import Cost
from sevenfold.assembly.cost.model import model_costs
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.assembly.pool import WIDER, pool
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.modules import ModuleDict
from sevenfold.core.types import Batch, Hidden, wide
from sevenfold.data.view import View
from sevenfold.modality import check_views
from sevenfold.objective import Look, Objective, rows_with, the_stream, the_trunk
from sevenfold.objective._example import of_pictures
from sevenfold.objective._teacher import through, trunks_for


class Looking(Objective):
    """Base of the objectives that see each item twice or more."""

    class Config(Objective.Config):
        trunk: str | None = None
        """The trunk whose representation is learned; by default the first."""
        stream: str | None = None
        """The stream that is looked at; by default the only one that the trunk reads."""
        views: tuple[View.Config, ...] | None = None
        """The random changes that make the looks; by default those that the modality declares. An empty list: none, so that
        the looks differ by dropout alone."""
        pool: str = "mean"
        """How the trunk's tokens become one vector: mean, class or last."""

    whole_items = True
    decomposable = False

    @classmethod
    def example(cls) -> dict[str, Any]:
        return of_pictures({"kind": cls.kind})

    @staticmethod
    def _read(config: Any, model: ModelConfig) -> tuple[str, str]:
        """(trunk, stream)."""
        trunk = the_trunk(model, config.trunk or next(iter(model.trunks)))
        given = [name for name in model.trunks[trunk].inputs if name in model.streams]
        return trunk, the_stream(model, config.stream, given)

    @classmethod
    def heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, Any]:
        trunk, stream = cls._read(config, model)
        if len(model.trunks[trunk].inputs) != 1:
            raise ConfigError(f"objective: {config.kind} needs a trunk that reads one stream, and {trunk!r} reads more")
        if config.pool in ("class", "class_mean") and not model.trunks[trunk].class_token:
            raise ConfigError(f"objective.pool: trunks.{trunk} has no class token: set class_token, or pool by mean")
        for field in type(config).model_fields:
            views = getattr(config, field)
            if isinstance(views, tuple) and views and all(isinstance(view, View.Config) for view in views):
                check_views([view.build() for view in views], model.streams[stream].build(), f"objective.{field}")
        return {}

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.trunk, self.stream = self._read(config, model.config)
        modality = model.modalities[self.stream]
        whole = modality.augmentation().whole
        self.views: tuple[View.Config, ...] = decoded(whole) if config.views is None else config.views
        if not self.views and not noisy(model, self.trunk):
            raise ConfigError(
                f"objective.views: {modality.kind} items have no views of their own, so that all looks at one would be equal: "
                f"name some, or set trunks.{self.trunk}.dropout"
            )

    @property
    def width(self) -> int:
        """Channels of the pooled representation."""
        return int(self.model.config.trunks[self.trunk].width) * WIDER.get(self.config.pool, 1)

    def names(self) -> list[str]:
        """The names of the looks."""
        return [f"{self.stream}.1", f"{self.stream}.2"]

    def looks(self) -> dict[str, Look]:
        return {name: Look(self.stream, self.views) for name in self.names()}

    def there(self, batch: Batch) -> Tensor | None:
        """[b] bool: the rows that every look has; None if there are none, or a look is missing."""
        names = self.names()
        if any(name not in batch for name in names):
            return None
        there = torch.stack([rows_with(batch[name]) for name in names]).all(0)
        return there if bool(there.any()) else None

    def whole(self, batch: Batch) -> Batch | None:
        """The rows that every look has, with the looks only; None if there are none, or a look is missing."""
        names, there = self.names(), self.there(batch)
        if there is None:
            return None
        if bool(there.all()):
            return {name: batch[name] for name in names}
        return {name: batch[name].rows(there) for name in names}

    def hidden(self, batch: Batch, look: str, trunks: ModuleDict[Any] | None = None) -> Hidden:
        """A look through the trunk (of the model, or of a teacher)."""
        chosen = trunks_for(self.model, self.trunk) if trunks is None else trunks
        return through(chosen, {self.stream: batch[look]}, self.trunk)

    def pooled(self, batch: Batch, look: str, trunks: ModuleDict[Any] | None = None) -> Tensor:
        """The representation of a look, [b width], in float32 at least."""
        return self.vector(self.hidden(batch, look, trunks))

    def vector(self, hidden: Hidden) -> Tensor:
        """The representation of what came through the trunk, [b width], in float32 at least."""
        return wide(pool(hidden, self.config.pool))

    def embed(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> dict[str, Tensor] | None:
        """Look → the representation of the rows that every look has, [k width]."""
        whole = self.whole(batch)
        return None if whole is None else {name: self.pooled(whole, name) for name in self.names()}

    # What it costs
    def looked(self, lengths: Mapping[str, int]) -> list[int]:
        """Tokens of each look, by the tokens of the streams or of the looks."""
        return [lengths.get(name, lengths.get(self.stream, 0)) for name in self.names()]

    def costs(self, lengths: Mapping[str, int], masked: Iterable[str] = ()) -> list[Cost]:
        found: list[Cost] = []
        for place, tokens in enumerate(self.looked(lengths)):
            costs = model_costs(self.model, {self.stream: tokens}, masked)
            found += costs if place == 0 else [again(cost, place) for cost in costs]
        return [*found, *self.own_costs()]

    def flops(self, batch: Batch) -> int:
        whole = self.whole(batch)
        if whole is None:
            return 0
        number = len(next(iter(whole.values())).values)
        return number * sum(cost.flops for cost in self.costs({name: s.values.shape[1] for name, s in whole.items()}))


class _View(part.Config):
    view: View.Config


def decoded(views: Sequence[Any]) -> tuple[View.Config, ...]:
    """Views that a modality declares, as configs."""
    return tuple(part.decode(_View, {"view": view}).view for view in views)


def again(cost: Cost, place: int) -> Cost:
    """A row of the plan for one more pass through the same weights."""
    return cost._replace(place=f"{cost.place} (look {place + 1})", parameters=0, trained=0)


def noisy(model: Model, name: str) -> bool:
    """Whether a trunk gives something else each time in training: dropout somewhere in it."""
    for module in model.trunks[name].modules():
        settings = getattr(module, "config", None)
        if any(getattr(settings, field, 0) for field in ("dropout", "drop")):
            return True
    return False
