"""What objectives that compare two streams have in common: two towers, which rows match, and what is shown.

A row of a batch is a pair: what one tower reads, and what the other does. Rows that are equal in either stream (two pictures of
one caption) are all counted as matches (`multi_positive`), instead of as false negatives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.assembly.head import HeadConfig
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.assembly.pool import pool
from sevenfold.assembly.prompt import reads
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Batch, Stream, wide
from sevenfold.objective import Exhibit, Objective, rows_with
from sevenfold.objective._watch import collapsed, health

U, V = "u", "v"
SAME_U, SAME_V = "same u", "same v"
"""Names of what is embedded: vectors of either tower, and what it read, for finding equal rows."""


class Towers(Objective):
    """Base of the objectives that compare two streams. Their `scale` is the log of what cosines are multiplied by."""

    class Config(Objective.Config):
        trunks: tuple[str, str] | None = None
        """The two towers; by default the model's two trunks."""
        width: int = Field(64, ge=1)
        """Channels of the shared space."""
        pool: str = "mean"
        """How a tower's tokens become one vector: mean, class or last."""
        multi_positive: bool = True
        """Count rows that are equal in either stream as matches instead of as false negatives."""

    decomposable = False
    cached = True
    watched = ("spread", "rank")
    scale: nn.Parameter

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
                f"objective.trunks: {config.kind} needs two trunks, one per stream; here are {list(model.trunks)}"
            )
        return names[0], names[1]

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.towers = self._towers(config, model.config)
        self.streams = [reads(model, tower) for tower in self.towers]

    @property
    def alike(self) -> bool:
        return bool(self.config.multi_positive)

    def vectors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """u and v [b width], of length 1."""
        done = self.model(batch)
        found = []
        for name in self.towers:
            config = self.model.config.heads[name]
            found.append(F.normalize(wide(self.model.head(name, pool(done[name], config.pool))), dim=-1))
        return found[0], found[1]

    def embed(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> dict[str, Tensor] | None:
        """u and v [k width] of the rows that have something for both towers, and what these read, where equal rows count."""
        there = [self._rows(batch, tower) for tower in (0, 1)]
        if there[0] is None or there[1] is None or not (both := there[0] & there[1]).any():
            return None
        whole = {name: stream.rows(both) for name, stream in batch.items()}
        u, v = self.vectors(whole)
        return {U: u, V: v, **self._read(whole)}

    def _read(self, batch: Batch) -> dict[str, Tensor]:
        """What equal rows are found by, [b …]."""
        if not self.config.multi_positive:
            return {}
        return {name: self._flat(batch, tower) for tower, name in enumerate((SAME_U, SAME_V))}

    def _rows(self, batch: Batch, tower: int) -> Tensor | None:
        """[b] bool: the rows that have something for a tower to read; None if there are none."""
        found = [rows_with(batch[name]) for name in self.streams[tower] if name in batch]
        return torch.stack(found).any(0) if found else None

    def _flat(self, batch: Batch, tower: int) -> Tensor:
        """All that a tower reads of each row, [b numbers]."""
        parts = []
        for name in self.streams[tower]:
            if name in batch:
                stream: Stream = batch[name]
                parts.append(stream.values.flatten(1))
                parts += [] if stream.valid is None else [stream.valid]
        kind = torch.float64 if any(part.is_floating_point() for part in parts) else torch.long
        return torch.cat([part.to(kind) for part in parts], 1)

    @staticmethod
    def matches(vectors: Mapping[str, Tensor]) -> Tensor:
        """[b b] bool: which rows of one tower match which of the other."""
        u = vectors[U]
        same = torch.eye(len(u), dtype=torch.bool, device=u.device)
        for name in (SAME_U, SAME_V):
            if name in vectors:
                number = vectors[name].detach().unique(dim=0, return_inverse=True)[1]
                same = same | (number[:, None] == number[None, :])
        return same

    def found(self, logits: Tensor, same: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """The terms of logits [b b]: how often the nearest is a match, both ways, and the scale."""
        count = torch.tensor(float(len(logits)), device=logits.device)
        hits = [same.gather(1, s.argmax(1, keepdim=True)).sum() for s in (logits, logits.T)]
        return {"recall@1": ((hits[0] + hits[1]) / 2, count), "scale": (self.scale.detach().exp() * count, count)}

    @staticmethod
    def alive(u: Tensor, v: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """The terms `spread` and `rank`, of the tower where they are less."""
        first, second = health(u), health(v)
        return {name: (torch.minimum(total, second[name][0]), count) for name, (total, count) in first.items()}

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        return collapsed(terms)

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
        found = []
        for batch in held_out:
            there = [self._rows(batch, tower) for tower in (0, 1)]
            if there[0] is not None and there[1] is not None and (both := there[0] & there[1]).any():
                whole = {name: stream.rows(both) for name, stream in batch.items()}
                rows = torch.zeros(int(both.sum()), 0, device=both.device)
                found.append(self.matches({U: rows, **self._read(whole)}))
        rows_in_all = sum(map(len, found))
        if not rows_in_all:
            return {}
        recall = sum(float(same.double().mean(1).sum()) for same in found) / rows_in_all
        return {"chance": {"nats": sum(map(self.chance, found)) / rows_in_all, "recall@1": recall}}

    @staticmethod
    def chance(same: Tensor) -> float:
        """The loss, added up over rows, of logits that are all one number."""
        return len(same) * math.log(len(same))
