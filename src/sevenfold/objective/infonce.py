"""Contrast between two streams: matching pairs are near, the others in the batch are far.

    L = - 1/2b sum_i [ log softmax_j(s u_i.v_j)_i + log softmax_j(s v_i.u_j)_i ],   u, v of length 1, s = exp(t) <= 100

van den Oord 2018, arXiv:1807.03748 eq. 4; symmetric with a learned temperature, Radford 2021 (CLIP), arXiv:2103.00020.
Rows that are equal in either stream (two pictures of one caption) are all counted as matches (`multi_positive`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.assembly.model import HeadConfig, Model, ModelConfig
from sevenfold.assembly.pool import pool
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Batch, Loss, Stream
from sevenfold.objective import Exhibit, Objective


class InfoNCE(Objective):
    class Config(Objective.Config):
        trunks: tuple[str, str] | None = None
        """The two towers; by default the model's two trunks."""
        width: int = Field(64, ge=1)
        """Channels of the shared space."""
        pool: str = "mean"
        """How a tower's tokens become one vector: mean, class or last."""
        temperature: float = Field(0.07, gt=0)
        """1/s at the start."""
        multi_positive: bool = True
        """Count rows that are equal in either stream as matches instead of as false negatives."""

    @classmethod
    def heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, HeadConfig]:
        return {
            name: HeadConfig(trunk=name, outputs=config.width, pool=config.pool)
            for name in cls._towers(config, model)
            if name not in model.heads
        }

    @staticmethod
    def _towers(config: Any, model: ModelConfig) -> tuple[str, str]:
        names = config.trunks or tuple(model.trunks)
        if len(names) != 2 or names[0] == names[1] or any(name not in model.trunks for name in names):
            raise ConfigError(
                f"objective.trunks: infonce needs two trunks, one per stream; here are {list(model.trunks)}"
            )
        return names[0], names[1]

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.towers = self._towers(config, model.config)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))

    def vectors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """u and v [b width], of length 1."""
        done = self.model(batch)
        found = []
        for name in self.towers:
            config = self.model.config.heads[name]
            found.append(F.normalize(self.model.head(name, pool(done[name], config.pool)).float(), dim=-1))
        return found[0], found[1]

    def forward(self, batch: Batch) -> Loss:
        u, v = self.vectors(batch)
        logits = self.scale.exp() * u @ v.T
        same = torch.eye(len(u), dtype=torch.bool, device=u.device)
        if self.config.multi_positive:
            same = same | self._equal(batch, 0) | self._equal(batch, 1)
        target = same.float()
        forward = -(logits.log_softmax(1) * target).sum(1) / target.sum(1)
        backward = -(logits.T.log_softmax(1) * target.T).sum(1) / target.T.sum(1)
        total = (forward.sum() + backward.sum()) / 2
        count = torch.tensor(float(len(u)), device=u.device)
        hits = [same.gather(1, s.argmax(1, keepdim=True)).sum() for s in (logits, logits.T)]
        terms = {
            "nats": (total.detach(), count),
            "recall@1": ((hits[0] + hits[1]) / 2, count),
            "scale": (self.scale.detach().exp() * count, count),
        }
        return Loss(total, count, terms, {"u": u.detach(), "v": v.detach()})

    def _equal(self, batch: Batch, tower: int) -> Tensor:
        """[b b] bool: rows whose stream has the same tokens."""
        names = [name for name in self.model.config.trunks[self.towers[tower]].inputs if name in batch]
        same = None
        for name in names:
            stream: Stream = batch[name]
            flat = stream.values.flatten(1)
            if stream.valid is not None and stream.discrete:
                flat = torch.where(stream.valid, stream.values, -1)
            equal = (flat[:, None] == flat[None, :]).all(-1)
            same = equal if same is None else same & equal
        assert same is not None
        return same

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        self.scale.clamp_(0, math.log(100))

    @torch.no_grad()
    def exhibits(self, samples: Sequence[dict[str, Any]], seed: int = 0) -> list[Exhibit]:
        names = [self.model.config.trunks[tower].inputs[0] for tower in self.towers]
        whole = [sample for sample in samples if all(sample.get(name) is not None for name in names)]
        if len(whole) < 2:
            return []
        batch = self.model.tokenize([{name: sample[name] for name in names} for sample in whole])
        u, v = self.vectors({name: stream.to(self.model.device) for name, stream in batch.items()})
        best = (u @ v.T).argmax(1).tolist()
        rows: list[list[tuple[str | None, Any]]] = [
            [(names[0], whole[place][names[0]]), (names[1], whole[found][names[1]])]
            for place, found in enumerate(best[:10])
        ]
        return [Exhibit(f"the nearest {names[1]} of {len(whole)} held-out ones", names, rows)]

    def baselines(self, train: Sequence[Batch], held_out: Sequence[Batch]) -> dict[str, dict[str, float]]:
        sizes = [len(next(iter(batch.values())).values) for batch in held_out]
        mean = sum(sizes) / len(sizes)
        return {"chance": {"nats": math.log(mean), "recall@1": 1 / mean}}
