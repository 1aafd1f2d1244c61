"""Supervised learning: what is known of an item, or of each of its tokens, is predicted.

    classes   L = - sum_i log p(y_i | x_i)            numbers   L = sum_i (f(x_i) - y_i)^2      (y standardised)
    labels    L = - sum_i mean_j [y_ij log p_ij + (1 - y_ij) log (1 - p_ij)],   p = sigmoid(f(x))

i is an item, or a token of one where the target has a label for every token. Cross-entropy, squared error and binary
cross-entropy; label smoothing from Szegedy 2015, arXiv:1512.00567 section 7. Samples without a label, and tokens of which none is
known, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from sevenfold.assembly.cost import Cost
from sevenfold.assembly.head import HeadConfig
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.assembly.pool import pool
from sevenfold.core.errors import ConfigError, did_you_mean
from sevenfold.core.types import Batch, Hidden, Loss, Stream, wide
from sevenfold.objective import Exhibit, Objective, rows_with, the_stream, the_trunk
from sevenfold.objective._raw import beside
from sevenfold.objective._teacher import trunks_for


class Names(NamedTuple):
    """The trunk that predicts, the stream that it predicts, and of which stream's tokens, where each has a label of its own."""

    trunk: str
    target: str
    of: str | None


class Supervised(Objective):
    class Config(Objective.Config):
        target: str | None = None
        """The stream to predict; by default the only one that no trunk reads."""
        trunk: str | None = None
        """The trunk to predict it from; by default the last."""
        of: str | None = None
        """The stream whose tokens have the labels, where there is one for each; by default the only one that the trunk reads."""
        pool: Literal["mean", "class", "last", "class_mean", "quarters"] = "mean"
        """How the trunk's tokens become one vector (class_mean: the class token and the mean, side by side; quarters: the
        means over a picture's quarters). Where each token has a label, each is read."""
        smoothing: float = Field(0.0, ge=0, lt=1)
        """Label smoothing of classes."""
        weights: dict[str, float] = {}
        """Label → what its samples count, where that is not 1: more for classes that are rare."""

    shares = True

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "data": {"kind": "digits", "limit": 48},
            "streams": {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}}, "label": "label"},
            "trunks": {"enc": {"inputs": ["image"], "width": 32, "depth": 1, "position": "axial_rotary"}},
            "objective": {"kind": cls.kind},
        }

    @classmethod
    def heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, HeadConfig]:
        trunk, target, of = cls._names(config, model)
        if target in model.heads:
            return {}
        if of is None and config.pool in ("class", "class_mean") and not model.trunks[trunk].class_token:
            raise ConfigError(f"objective.pool: trunks.{trunk} has no class token: set class_token, or pool by mean")
        projection: Any = {"kind": "linear", "bias": True}
        how = config.pool if of is None else "none"
        return {target: HeadConfig(trunk=trunk, stream=target, pool=how, projection=projection)}

    @staticmethod
    def _names(config: Any, model: ModelConfig) -> Names:
        read = {given for trunk in model.trunks.values() for given in trunk.inputs}
        free = [stream for stream in model.streams if stream not in read]
        if not free:
            raise ConfigError(
                "objective: supervised needs a stream that no trunk reads, to predict (a label, a number)"
            )
        target = the_stream(model, config.target, free, "target")
        trunk = the_trunk(model, config.trunk or list(model.trunks)[-1])
        if model.streams[target].tokenizer.part.axes == 0:
            return Names(trunk, target, None)
        given = [name for name in model.trunks[trunk].inputs if name in model.streams]
        return Names(trunk, target, the_stream(model, config.of, given, "of"))

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.trunk, self.target, self.of = self._names(config, model.config)
        read = {given for trunk in model.config.trunks.values() for given in trunk.inputs}
        self.through = tuple(trunks_for(model, self.trunk))
        self.inputs = [name for name in model.config.streams if name in read]
        tokenizer = model.modalities[self.target].tokenizer
        self.discrete, self.binary = tokenizer.size is not None, tokenizer.binary
        self.squared = not (self.discrete or self.binary)
        self.outputs = tokenizer.spelled() or tokenizer.size or tokenizer.features or 1
        """Classes, labels or numbers that are predicted."""
        if config.weights and self.squared:
            raise ConfigError("objective.weights: a target of numbers has no labels to weigh")
        pieces = [tokenizer.piece(id) for id in range(self.outputs)]
        for label in config.weights:
            if label not in pieces:
                raise ConfigError(f"objective.weights: there is no label {label!r}{did_you_mean(label, pieces)}")
        weights = torch.tensor([config.weights.get(piece, 1.0) for piece in pieces])
        self.register_buffer("weights", weights if config.weights else None, persistent=False)
        self.weights: Tensor | None

    def aligned(self) -> dict[str, str]:
        return {} if self.of is None else {self.target: self.of}

    def initial(self, batch: Batch) -> float | None:
        if self.squared:
            return None
        return math.log(2 if self.binary else self.outputs)

    # What is known
    def known(self, batch: Batch) -> Tensor:
        """[b], or [b n] for labels of tokens: which targets there are, of rows whose inputs are there."""
        stream, inputs = batch[self.target], self.reads(batch)
        real = torch.ones(stream.values.shape[:2], dtype=torch.bool, device=stream.values.device)
        real = real if stream.valid is None else stream.valid
        if self.discrete:
            real = real & (stream.values < self.outputs)
        if not inputs:
            return torch.zeros_like(real if self.of is not None else real[:, 0])
        if self.of is None:
            return real[:, 0] & torch.stack([rows_with(stream) for stream in inputs.values()]).any(0)
        if self.of not in inputs:
            return torch.zeros_like(real)
        of = self._labelled(inputs[self.of])
        k = min(real.shape[1], of.values.shape[1])
        return real[:, :k] if of.valid is None else real[:, :k] & of.valid[:, :k]

    def _labelled(self, stream: Stream) -> Stream:
        """The tokens that have labels: those behind what stands in front of an item."""
        assert self.of is not None
        return stream.slice(len(self.model.modalities[self.of].around()[0]), None)

    def targets(self, batch: Batch, drawn: Mapping[str, Tensor]) -> Tensor | None:
        if self.target not in batch:
            return torch.zeros(())
        known = self.known(batch)
        if self.weights is None or self.binary:
            return known.sum().float()
        values = batch[self.target].values
        values = values[:, 0] if self.of is None else values[:, : known.shape[1]]
        return self.weights[values[known]].sum()

    # What is said
    def reads(self, batch: Batch) -> Batch:
        return {name: stream for name, stream in batch.items() if name in self.inputs}

    def answer(self, done: Mapping[str, Hidden]) -> Tensor:
        """[b outputs], or [b n outputs] for every token that may have a label: logits, or numbers."""
        hidden = done[self.trunk]
        if self.of is None:
            x = pool(hidden, self.model.config.heads[self.target].pool)
        else:
            x = hidden.of(self.of).x[:, len(self.model.modalities[self.of].around()[0]) :]
        return self.model.head(self.target, x)[..., : self.outputs]

    def guess(self, batch: Batch) -> Tensor:
        """The same, of a batch."""
        return self.answer(self.model.earlier(self.reads(batch), None, self.through))

    def forward(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> Loss:
        inputs = self.reads(batch)
        if not inputs or self.target not in batch:
            return self.nothing()
        return self.judge(self.model.earlier(inputs, None, self.through), batch)

    def judge(self, done: Mapping[str, Hidden], batch: Batch) -> Loss:
        if self.target not in batch or self.trunk not in done or (self.of is not None and self.of not in batch):
            return self.nothing()
        known, values = self.known(batch), batch[self.target].values
        guess = wide(self.answer(done))
        if self.of is None:
            guess, target = guess[known], values[:, 0][known]
        else:
            guess, target = guess[:, : known.shape[1]][known], values[:, : known.shape[1]][known]
        count = torch.tensor(float(len(guess)), device=guess.device)
        said = {"guess": guess.detach()}
        if self.binary:
            each = nn.functional.binary_cross_entropy_with_logits(guess, target, self.weights, reduction="none")
            total = each.mean(-1).sum()
            found, there = guess > 0, target > 0.5
            hits, all_ = 2 * (found & there).sum(), found.sum() + there.sum()
            return Loss(total, count, {"nats": (total.detach(), count), "f1": (hits, all_)}, said)
        if not self.discrete:
            total = (guess - target).square().mean(-1).sum()
            return Loss(total, count, {"mse": (total.detach(), count)}, said)
        smoothing = self.config.smoothing if self.training else 0.0
        weights = None if self.weights is None else self.weights.to(guess.dtype)
        total = nn.functional.cross_entropy(guess, target, weights, reduction="sum", label_smoothing=smoothing)
        right = (guess.argmax(-1) == target).sum()
        terms = {"nats": (total.detach(), count), "accuracy": (right, count)}
        if weights is not None:
            count = weights[target].sum()
            terms = {"nats": (total.detach(), count), "accuracy": terms["accuracy"]}
        return Loss(total, count, terms, said)

    def costs(self, lengths: Mapping[str, int], masked: Iterable[str] = ()) -> list[Cost]:
        """Without the trunks and heads that it has no use for."""
        used = {*self.through, "heads"}
        found = [
            cost for cost in super().costs(lengths, masked) if cost.place.partition(".")[0] in used or not cost.flops
        ]
        return [cost for cost in found if not cost.place.startswith("heads.") or cost.place == f"heads.{self.target}"]

    # How it is shown
    @torch.no_grad()
    def exhibits(self, samples: Sequence[dict[str, Any]], seed: int = 0) -> list[Exhibit]:
        inputs = self.inputs
        whole = [
            s for s in samples if s.get(self.target) is not None and any(s.get(name) is not None for name in inputs)
        ]
        whole = [s for s in whole if self.of is None or s.get(self.of) is not None][:12]
        if not whole:
            return []
        batch = self.model.tokenize([{name: s.get(name) for name in inputs} for s in whole])
        guess = self.guess({name: stream.to(self.model.device) for name, stream in batch.items()}).float().cpu()
        modality, said = self.model.modalities[self.target], []
        for row, sample in zip(guess, whole):
            if self.of is not None:
                row = row[: len(modality.tokens(sample[self.target]).values)]
            values = row.argmax(-1, keepdim=self.of is None) if self.discrete else row
            said.append(modality.plain(modality.raw((values.sigmoid() if self.binary else values).numpy())))
        shown = self.of or inputs[0]
        rows: list[list[tuple[str | None, Any]]] = [
            [(shown, s.get(shown)), (None, modality.plain(s[self.target])), (None, word)]
            for s, word in zip(whole, said)
        ]
        return [Exhibit(f"{self.target} (held out)", [shown, "true", "predicted"], rows)]

    def baselines(self, train: Sequence[Batch], held_out: Sequence[Batch]) -> dict[str, dict[str, float]]:
        return beside(self, train, held_out)
