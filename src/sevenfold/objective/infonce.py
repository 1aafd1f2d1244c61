"""Contrast between two streams: matching pairs are near, the others in the batch are far.

    L = - 1/2b sum_i [ log softmax_j(s u_i.v_j)_i + log softmax_j(s v_i.u_j)_i ],   u, v of length 1, s = exp(t) <= 100

van den Oord 2018, arXiv:1807.03748 eq. 4; symmetric with a learned temperature, Radford 2021 (CLIP), arXiv:2103.00020.
Rows that are equal in either stream (two pictures of one caption) are all counted as matches (`multi_positive`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.assembly.model import HeadConfig, Model, ModelConfig
from sevenfold.assembly.pool import pool
from sevenfold.assembly.prompt import reads
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Constant, Rule
from sevenfold.core.types import Batch, Loss, Stream, wide
from sevenfold.objective import Exhibit, Objective, rows_with


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

    decomposable = False

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "data": {"kind": "digits", "limit": 48},
            "streams": {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}}, "caption": "text"},
            "trunks": {
                "v": {"inputs": ["image"], "width": 32, "depth": 1, "position": "axial_rotary"},
                "t": {"inputs": ["caption"], "width": 24, "depth": 1},
            },
            "objective": {"kind": cls.kind},
        }

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
        self.streams = [reads(model, tower) for tower in self.towers]
        self.scale = nn.Parameter(torch.empty(()))

    def rules(self) -> dict[str, Rule]:
        return {"scale": Constant(math.log(1 / self.config.temperature))}

    def vectors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """u and v [b width], of length 1."""
        done = self.model(batch)
        found = []
        for name in self.towers:
            config = self.model.config.heads[name]
            found.append(F.normalize(wide(self.model.head(name, pool(done[name], config.pool))), dim=-1))
        return found[0], found[1]

    def forward(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> Loss:
        whole = self._whole(batch)
        if whole is None:
            return self.nothing()
        u, v = self.vectors(whole)
        with torch.autocast(u.device.type, enabled=False):
            logits = self.scale.exp() * u @ v.T
        same = self._matches(whole)
        target = same.to(logits.dtype)
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

    def _whole(self, batch: Batch) -> Batch | None:
        """The rows that have something for both towers; None if there are none."""
        there = [self._rows(batch, tower) for tower in (0, 1)]
        if there[0] is None or there[1] is None or not (both := there[0] & there[1]).any():
            return None
        return {name: stream.rows(both) for name, stream in batch.items()}

    def _matches(self, batch: Batch) -> Tensor:
        """[b b] bool: which rows of one tower match which of the other."""
        values = next(iter(batch.values())).values
        same = torch.eye(len(values), dtype=torch.bool, device=values.device)
        return same | self._equal(batch, 0) | self._equal(batch, 1) if self.config.multi_positive else same

    def _rows(self, batch: Batch, tower: int) -> Tensor | None:
        """[b] bool: the rows that have something for a tower to read; None if there are none."""
        found = [rows_with(batch[name]) for name in self.streams[tower] if name in batch]
        return torch.stack(found).any(0) if found else None

    def _equal(self, batch: Batch, tower: int) -> Tensor:
        """[b b] bool: rows whose stream has the same tokens."""
        names = [name for name in self.streams[tower] if name in batch]
        same = None
        for name in names:
            stream: Stream = batch[name]
            flat = stream.values.flatten(1)
            if stream.valid is not None:
                flat = torch.cat([flat, stream.valid.to(flat.dtype)], 1)
            number = flat.unique(dim=0, return_inverse=True)[1]
            equal = number[:, None] == number[None, :]
            same = equal if same is None else same & equal
        assert same is not None
        return same

    @torch.no_grad()
    def after_step(self, step: int, steps: int) -> None:
        self.scale.clamp_(0, math.log(100))

    @torch.no_grad()
    def exhibits(self, samples: Sequence[dict[str, Any]], seed: int = 0) -> list[Exhibit]:
        names = [self.streams[tower][0] for tower in (0, 1)]
        whole = [sample for sample in samples if all(sample.get(name) is not None for name in names)]
        if len(whole) < 2:
            return []
        batch = self.model.tokenize([{name: sample[name] for name in names} for sample in whole])
        u, v = self.vectors({name: stream.to(self.model.device) for name, stream in batch.items()})
        near = u @ v.T
        places = (near > near.diagonal()[:, None]).sum(1).add(1).tolist()
        rows: list[list[tuple[str | None, Any]]] = [
            [
                (names[0], whole[place][names[0]]),
                (names[1], whole[found][names[1]]),
                (names[1], whole[place][names[1]]),
                (None, f"{places[place]} of {len(whole)}"),
            ]
            for place, found in list(enumerate(near.argmax(1).tolist()))[:: -(-len(whole) // 10)]
        ]
        columns = [names[0], f"nearest {names[1]}", f"its own {names[1]}", "its own came"]
        return [Exhibit(f"each {names[0]} looks for its {names[1]} among {len(whole)} held-out ones", columns, rows)]

    def baselines(self, train: Sequence[Batch], held_out: Sequence[Batch]) -> dict[str, dict[str, float]]:
        matches = [self._matches(whole) for batch in held_out if (whole := self._whole(batch)) is not None]
        rows = sum(len(same) for same in matches)
        if not rows:
            return {}
        nats = sum(len(same) * math.log(len(same)) for same in matches) / rows
        return {"chance": {"nats": nats, "recall@1": sum(float(same.float().mean(1).sum()) for same in matches) / rows}}
