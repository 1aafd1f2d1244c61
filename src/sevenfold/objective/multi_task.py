"""Several tasks from one backbone, each weighted by how uncertain the model is of it.

    L = sum_k exp(-s_k) L_k + s_k / 2         nats (classes, labels, tokens)
      + sum_k exp(-s_k) L_k / 2 + s_k / 2     squared errors (numbers, vectors)          s = log sigma^2, learned

Kendall 2018, arXiv:1705.07115 eq. 7 and 10. At its optimum s is log 2 L, or log L: the gradient of a task is then that of the log
of its loss, whatever its unit. s stays within -6 … 6, so that no task that is solved takes all the weight; weight decay leaves it.
Tasks are any objectives: supervised ones, and those without labels beside them. Given `weights`, none is learned: L = sum_k w_k L_k.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core.errors import ConfigError, did_you_mean
from sevenfold.core.initial import Care, Constant, Rule
from sevenfold.core.part import find
from sevenfold.core.types import Batch, Loss
from sevenfold.objective import Objective
from sevenfold.objective._parts import Parts

MOST = 6.0
"""The largest |s|."""
RATE = 10.0
"""The learning rate of s, as a multiple of the others': it has a long way to go in few steps."""


class MultiTask(Parts):
    class Config(Objective.Config):
        tasks: dict[str, Objective.Config] = {}
        """Name → what is learned; by default every stream that no trunk reads is predicted."""
        weights: dict[str, float] | None = None
        """Name → its weight, for all tasks; by default they are learned."""

    where = "tasks"

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "data": {"kind": "digits", "limit": 48},
            "streams": {
                "image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}},
                "label": "label",
                "ink": "number",
            },
            "trunks": {"enc": {"inputs": ["image"], "width": 32, "depth": 1, "position": "axial_rotary"}},
            "objective": {"kind": cls.kind},
        }

    @classmethod
    def of(cls, config: Any, model: ModelConfig) -> dict[str, Objective.Config]:
        tasks = dict(config.tasks)
        if not tasks:
            read = {given for trunk in model.trunks.values() for given in trunk.inputs}
            kind: Any = find("objective", "supervised").Config
            tasks = {name: kind(target=name) for name in model.streams if name not in read}
        if not tasks:
            raise ConfigError(
                "objective.tasks: every stream is read by a trunk, so none is left to predict: name tasks"
            )
        for name in tasks:
            if not name.isidentifier():
                raise ConfigError(f"objective.tasks: {name!r} is no name: letters, digits and _ make one")
        for name in config.weights or {}:
            if name not in tasks:
                raise ConfigError(f"objective.weights: there is no task {name!r}{did_you_mean(name, tasks)}")
        if config.weights is not None and len(config.weights) < len(tasks):
            raise ConfigError(f"objective.weights: give the weight of each of {list(tasks)}, or none at all")
        return tasks

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.s = nn.Parameter(torch.empty(len(self.parts))) if config.weights is None else None

    def rules(self) -> dict[str, Rule]:
        return {} if self.s is None else {"s": Constant(0.0)}

    def cares(self) -> dict[str, Care]:
        found = super().cares()
        return found if self.s is None else {**found, "s": Care(False, RATE)}

    def initial(self, batch: Batch) -> float | None:
        total = 0.0
        for name, part in self.parts.items():
            one = part.initial(self.given(name, batch))
            if one is None:
                return None
            weight = (0.5 if part.squared else 1.0) if self.s is None else 1.0
            total += one * (weight if self.config.weights is None else self.config.weights[name])
        return total

    def weighed(self, sums: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        if self.s is None:
            return torch.stack([self.config.weights[name] * total for name, total in sums.items()]).sum()
        pieces = []
        for name, total in sums.items():
            s = self.s[list(self.parts).index(name)]
            pieces.append(torch.exp(-s) * total * (0.5 if self.parts[name].squared else 1.0) + rows * s / 2)
        return torch.stack(pieces).sum()

    def terms(self, losses: Mapping[str, Loss]) -> dict[str, tuple[Tensor, Tensor]]:
        found = super().terms(losses)
        if self.s is None:
            return found
        one = torch.ones((), device=self.s.device)
        return found | {f"{name}.s": (s.clone(), one) for name, s in zip(self.parts, self.s.detach())}

    @torch.no_grad()
    def after_step(self, step: int, steps: int) -> None:
        super().after_step(step, steps)
        if self.s is not None:
            self.s.clamp_(-MOST, MOST)
