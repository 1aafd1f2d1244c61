"""Supervised learning: a stream of single facts (a class, a number) is predicted from the others.

    classes   L = - sum_i log p(y_i | x_i)            numbers   L = sum_i (f(x_i) - y_i)^2      (y standardised)

Cross-entropy and squared error; label smoothing from Szegedy 2015, arXiv:1512.00567 section 7. Samples without a label
are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sevenfold.assembly.model import HeadConfig, Model, ModelConfig
from sevenfold.assembly.pool import pool
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Batch, Loss, Stream, wide
from sevenfold.objective import Exhibit, Objective, rows_with, the_stream, the_trunk


class Supervised(Objective):
    class Config(Objective.Config):
        target: str | None = None
        """The stream to predict; by default the only one that no trunk reads."""
        trunk: str | None = None
        """The trunk to predict it from; by default the last."""
        pool: Literal["mean", "class", "last", "class_mean"] = "mean"
        """How the trunk's tokens become one vector (class_mean: the class token and the mean, side by side)."""
        smoothing: float = Field(0.0, ge=0, lt=1)
        """Label smoothing."""

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "data": {"kind": "digits", "limit": 48},
            "streams": {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}}, "label": "label"},
            "trunks": {"enc": {"inputs": ["image"], "width": 32, "depth": 1, "position": "axial_rotary"}},
            "objective": {"kind": cls.kind},
        }

    def initial(self, batch: Batch) -> float | None:
        return math.log(self.model.modalities[self.target].tokenizer.size or 1) if self.discrete else None

    @classmethod
    def heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, HeadConfig]:
        trunk, target = cls._names(config, model)
        if target in model.heads:
            return {}
        if config.pool in ("class", "class_mean") and not model.trunks[trunk].class_token:
            raise ConfigError(f"objective.pool: trunks.{trunk} has no class token: set class_token, or pool by mean")
        projection: Any = {"kind": "linear", "bias": True}
        return {target: HeadConfig(trunk=trunk, stream=target, pool=config.pool, projection=projection)}

    @staticmethod
    def _names(config: Any, model: ModelConfig) -> tuple[str, str]:
        read = {given for trunk in model.trunks.values() for given in trunk.inputs}
        free = [stream for stream in model.streams if stream not in read]
        if not free:
            raise ConfigError(
                "objective: supervised needs a stream that no trunk reads, to predict (a label, a number)"
            )
        target = the_stream(model, config.target, free, "target")
        return the_trunk(config, model, config.trunk or list(model.trunks)[-1]), target

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.trunk, self.target = self._names(config, model.config)
        read = {given for trunk in model.config.trunks.values() for given in trunk.inputs}
        self.inputs = [name for name in model.config.streams if name in read]
        self.discrete = model.modalities[self.target].tokenizer.size is not None

    def guess(self, batch: Batch) -> Tensor:
        """[b classes] logits, or [b p] numbers."""
        hidden = self.model({name: stream for name, stream in batch.items() if name != self.target})[self.trunk]
        return self.model.head(self.target, pool(hidden, self.model.config.heads[self.target].pool))

    def forward(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> Loss:
        inputs = {name: stream for name, stream in batch.items() if name in self.inputs}
        if self.target not in batch or not inputs:
            return self.nothing()
        guess = wide(self.guess(batch))
        target, known = self._targets(batch[self.target])
        seen = torch.stack([rows_with(stream) for stream in inputs.values()]).any(0)
        guess, target = guess[known & seen], target[seen[known]]
        count = torch.tensor(float(len(guess)), device=guess.device)
        if not self.discrete:
            total = (guess - target).square().mean(-1).sum()
            return Loss(total, count, {"mse": (total.detach(), count)}, {"guess": guess.detach()})
        smoothing = self.config.smoothing if self.training else 0.0
        total = nn.functional.cross_entropy(guess, target, reduction="sum", label_smoothing=smoothing)
        right = (guess.argmax(-1) == target).sum()
        return Loss(
            total, count, {"nats": (total.detach(), count), "accuracy": (right, count)}, {"guess": guess.detach()}
        )

    def _targets(self, stream: Stream) -> tuple[Tensor, Tensor]:
        known = torch.ones(len(stream.values), dtype=torch.bool, device=stream.values.device)
        if stream.valid is not None:
            known = stream.valid[:, 0]
        return stream.values[:, 0][known], known

    @torch.no_grad()
    def exhibits(self, samples: Sequence[dict[str, Any]], seed: int = 0) -> list[Exhibit]:
        inputs = [name for name in self.model.config.streams if name != self.target]
        whole = [
            s for s in samples if s.get(self.target) is not None and any(s.get(name) is not None for name in inputs)
        ]
        whole = whole[:12]
        if not whole:
            return []
        batch = self.model.tokenize([{name: s.get(name) for name in inputs} for s in whole])
        guess = self.guess({name: stream.to(self.model.device) for name, stream in batch.items()}).float()
        values = guess.argmax(-1, keepdim=True) if self.discrete else guess
        said = [self.model.modalities[self.target].raw(row.cpu().numpy()) for row in values]
        shown = inputs[0]
        rows: list[list[tuple[str | None, Any]]] = [
            [(shown, s.get(shown)), (None, str(s[self.target])), (None, str(word))] for s, word in zip(whole, said)
        ]
        return [Exhibit(f"{self.target} (held out)", [shown, "true", "predicted"], rows)]

    def baselines(self, train: Sequence[Batch], held_out: Sequence[Batch]) -> dict[str, dict[str, float]]:
        from sklearn.linear_model import LogisticRegression, Ridge

        x, y = self._table(train)
        x_new, y_new = self._table(held_out)
        if not len(y) or not len(y_new):
            return {}
        if not self.discrete:
            guess = Ridge().fit(x, y).predict(x_new).reshape(y_new.shape)
            return {
                "mean": {"mse": float(np.square(y_new - y.mean(0)).mean())},
                "ridge regression on raw features": {"mse": float(np.square(guess - y_new).mean())},
            }
        common = np.bincount(y).argmax()
        found = {"majority class": {"accuracy": float((y_new == common).mean())}}
        if len(set(y.tolist())) > 1:
            model = LogisticRegression(max_iter=1000).fit(x, y)
            found["logistic regression on raw features"] = {"accuracy": float(model.score(x_new, y_new))}
        return found

    def _columns(self, name: str) -> int:
        """How many raw features a stream has in the table."""
        tokenizer = self.model.modalities[name].tokenizer
        layout = tokenizer.layout()
        return tokenizer.size or (tokenizer.features or 0) * (1 if layout is None else len(layout))

    def _table(self, batches: Sequence[Batch]) -> tuple[np.ndarray, np.ndarray]:
        """Raw features of the input streams (vectors flattened, or their mean; ids counted), and targets."""
        features, targets = [], []
        for batch in batches:
            if self.target not in batch:
                continue
            target, known = self._targets(batch[self.target])
            columns = []
            for name in self.model.config.streams:
                if name == self.target:
                    continue
                if name not in batch:
                    columns.append(torch.zeros(len(target), self._columns(name)))
                    continue
                stream = batch[name].rows(known)
                valid = torch.ones(stream.values.shape[:2]) if stream.valid is None else stream.valid.float()
                if stream.discrete:
                    size = self.model.modalities[name].tokenizer.size
                    assert size is not None
                    columns.append(torch.zeros(len(valid), size).scatter_add_(1, stream.values, valid))
                elif self.model.modalities[name].tokenizer.layout() is not None:
                    columns.append(stream.values.flatten(1))
                else:
                    columns.append((stream.values * valid[..., None]).sum(1) / valid.sum(1, keepdim=True).clamp(min=1))
            features.append(torch.cat(columns, 1).numpy())
            targets.append(target.numpy())
        if not features:
            return np.zeros((0, 1)), np.zeros(0)
        return np.concatenate(features), np.concatenate(targets)
