"""Labels that the model gives itself: what it is sure of in a weakly changed item, it must say of a strongly changed one.

    L = mean_{i labelled} H(y_i, p(weak x_i)) + w mean_i 1[max p(weak x_i) >= t] H(argmax p(weak x_i), p(strong x_i))

Sohn 2020 (FixMatch), arXiv:2001.07685 eq. 3 and 4. i in the second mean goes over all samples. Weak changes are the stream's own
`views`, strong ones come on top of them; without any of its own, the weak look is the item itself. No moving average is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sevenfold.assembly.cost import Cost
from sevenfold.assembly.head import HeadConfig
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Batch, Loss, wide
from sevenfold.data.view import View
from sevenfold.modality import check_views
from sevenfold.objective import Look, rows_with, the_stream
from sevenfold.objective._looks import again
from sevenfold.objective.supervised import Supervised

SHOWN = 20
"""Classes of which the share among the labels that it gives is logged, at most."""


class FixMatch(Supervised):
    class Config(Supervised.Config):
        stream: str | None = None
        """The stream that is changed; by default the only one that the trunk reads."""
        views: tuple[View.Config, ...] | None = None
        """The strong changes; by default those that the modality declares."""
        threshold: float = Field(0.9, gt=0, lt=1)
        """t: how sure it must be."""
        weight: float = Field(1.0, gt=0)
        """w."""

    whole_items = True
    shares = False

    @classmethod
    def example(cls) -> dict[str, Any]:
        found = super().example()
        return {**found, "data": {**found["data"], "labelled": {"label": 3}}}

    @classmethod
    def heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, HeadConfig]:
        stream = cls._stream(config, model)
        if cls._names(config, model).of is not None:
            raise ConfigError("objective: fixmatch gives items a class, not each token: choose supervised")
        if config.views is not None:
            built = [view.build() for view in config.views]
            check_views(built, model.streams[stream].build(), "objective.views")
            if not built:
                raise ConfigError("objective.views: without a strong change there is nothing to agree about: name some")
        return super().heads(config, model, sizes)

    @classmethod
    def _stream(cls, config: Any, model: ModelConfig) -> str:
        trunk = cls._names(config, model).trunk
        return the_stream(model, config.stream, [name for name in model.trunks[trunk].inputs if name in model.streams])

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.stream = self._stream(config, model.config)
        if not self.discrete:
            raise ConfigError(f"objective.target: fixmatch needs classes, and {self.target!r} is none of a few")
        modality = model.modalities[self.stream]
        whole = modality.augmentation().whole
        self.views: tuple[View.Config, ...] = (
            tuple(part.decode(_View, {"view": view}).view for view in whole) if config.views is None else config.views
        )
        if not self.views:
            raise ConfigError(f"objective.views: {modality.kind} items have no views of their own: name strong changes")
        self.strong = f"{self.stream}.strong"

    def looks(self) -> dict[str, Look]:
        return {self.stream: Look(self.stream), self.strong: Look(self.stream, self.views)}

    def targets(self, batch: Batch, drawn: Mapping[str, Tensor]) -> Tensor | None:
        return self._both(batch).sum().float() if self.stream in batch and self.strong in batch else torch.zeros(())

    def _both(self, batch: Batch) -> Tensor:
        """[b] bool: rows with both looks."""
        return rows_with(batch[self.stream]) & rows_with(batch[self.strong])

    def draw(self, batch: Batch) -> dict[str, Tensor]:
        """Rows per labelled row, the same for all: the mean over labelled rows is that of the whole batch, however it is split."""
        if not {self.target, self.stream, self.strong} <= batch.keys():
            return {}
        known = super().targets(batch, {})
        assert known is not None
        share = self._both(batch).sum() / known.clamp(min=1)
        return {"share": share.expand(len(batch[self.stream].values))}

    def forward(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> Loss:
        if self.stream not in batch or self.strong not in batch:
            return self.nothing()
        drawn = self.draw(batch) if drawn is None else drawn
        inputs, both = self.reads(batch), self._both(batch)
        count = both.sum().float()
        done = self.model.earlier(inputs, None, self.through)
        labels = self.judge(done, batch)
        p, said = wide(self.answer(done)).detach().softmax(-1).max(-1)
        sure = both & (p >= self.config.threshold)
        seen = self.model.earlier({**inputs, self.stream: batch[self.strong]}, None, self.through)
        logits = wide(self.answer(seen))
        other = nn.functional.cross_entropy(logits[sure], said[sure], reduction="sum")
        total = self.config.weight * other
        if "share" in drawn and float(labels.count) > 0:
            total = total + labels.total * drawn["share"][0].to(labels.total.dtype)
        terms = {**labels.terms, "agreement": (other.detach(), count), "sure": (sure.sum(), count)}
        return Loss(total, count, terms | self._given(said, sure, batch), labels.outputs)

    def _given(self, said: Tensor, sure: Tensor, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """The share of each class among the labels that it gives, and how many are right of those that are known."""
        found = {}
        for id in range(min(self.outputs, SHOWN)):
            found[f"given.{self.model.modalities[self.target].tokenizer.piece(id)}"] = (
                (sure & (said == id)).sum(),
                sure.sum(),
            )
        if self.target in batch:
            known = self.known(batch) & sure
            found["given_right"] = ((said == batch[self.target].values[:, 0])[known].sum(), known.sum())
        return {name: pair for name, pair in found.items() if bool(pair[1] > 0)}

    def costs(self, lengths: Mapping[str, int], masked: Iterable[str] = ()) -> list[Cost]:
        found = super().costs(lengths, masked)
        strong = {**lengths, self.stream: lengths.get(self.strong, lengths.get(self.stream, 0))}
        return [*found, *(again(cost, 1) for cost in super().costs(strong, masked) if cost.flops)]

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        given = {name[6:]: value for name, value in terms.items() if name.startswith("given.")}
        top = max(given, key=lambda name: given[name], default=None)
        if top is not None and terms.get("sure", 0) > 0.5 and given[top] > 0.9 and self.outputs > 2:
            return [f"it gives {100 * given[top]:.0f} % of samples the label {top!r}: it confirms its own mistakes"]
        return []


class _View(part.Config):
    view: View.Config
