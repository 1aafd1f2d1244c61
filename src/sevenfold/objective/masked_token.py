"""Masked-token prediction: some tokens are hidden, the model says what they were.

    L = - 1/|M| sum_{i in M} log p(x_i | x with M corrupted);   of M: 80 % mask token, 10 % random id, 10 % unchanged

Devlin 2018 (BERT), arXiv:1810.04805 section 3.1; ESM-2, doi:10.1126/science.ade2574. M is drawn from valid tokens that
are not special, exactly round(ratio n) of them (at least one) per row. Head and loss run on the rows in M only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.assembly.cost import Cost
from sevenfold.assembly.cost.model import model_costs
from sevenfold.assembly.head import HeadConfig
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Batch, Loss, Stream
from sevenfold.objective import Exhibit, Objective, check_masker, has_head, the_stream, the_trunk
from sevenfold.objective._told import told
from sevenfold.objective.masker import Masker, all_eligible, share


class MaskedToken(Objective):
    class Config(Objective.Config):
        trunk: str | None = None
        """The trunk, not causal; by default the only one."""
        stream: str | None = None
        """The stream whose tokens are hidden; by default the only one that the trunk reads."""
        ratio: float = Field(0.15, gt=0, lt=1)
        """The share of tokens to predict."""
        mask: float = Field(0.8, ge=0, le=1)
        """Of these, the share that becomes the mask token."""
        random: float = Field(0.1, ge=0, le=1)
        """Of these, the share that becomes a random id; the rest stays."""
        masker: Masker.Config = part.default("random")
        """Which tokens are hidden: singly, or in runs (`span`, of at least k for overlapping k-mers), blocks …"""

    in_pieces = True

    @classmethod
    def heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, HeadConfig]:
        name = the_trunk(model, config.trunk)
        trunk = model.trunks[name]
        if trunk.mask.causal:
            raise ConfigError(f"objective: masked_token needs both sides: set trunks.{name}.mask.causal to false")
        if config.mask + config.random > 1:
            raise ConfigError(f"objective: mask {config.mask} and random {config.random} together exceed 1")
        stream = the_stream(model, config.stream, [given for given in trunk.inputs if given in model.streams])
        if has_head(model, name, stream) is not None:
            return {}
        projection: Any = {"kind": "tied", "bias": True}
        return {stream: HeadConfig(trunk=name, stream=stream, projection=projection, transform=True)}

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.trunk = the_trunk(model.config, config.trunk)
        inputs = model.config.trunks[self.trunk].inputs
        self.stream = the_stream(
            model.config, config.stream, [given for given in inputs if given in model.config.streams]
        )
        tokenizer = model.modalities[self.stream].tokenizer
        if tokenizer.size is None or "mask" not in tokenizer.specials:
            raise ConfigError(
                f"objective: masked_token needs ids with a mask token, which the {tokenizer.kind} tokenizer of stream "
                f"{self.stream!r} does not give: for vectors choose mae"
            )
        self.masker: Masker = check_masker(config.masker, model.modalities[self.stream]).build()
        self.size, self.mask_id = tokenizer.size, tokenizer.specials["mask"]
        head = has_head(model.config, self.trunk, self.stream)
        assert head is not None
        self.head = head
        self.register_buffer("special", torch.zeros(self.size, dtype=torch.bool), persistent=False)
        self.special[list(tokenizer.specials.values())] = True
        self.special: Tensor

    def initial(self, batch: Batch) -> float | None:
        return math.log(self.size)

    def _eligible(self, stream: Stream) -> Tensor:
        """[b n] bool: tokens that may be in M."""
        return ~self.special[stream.values] & all_eligible(stream.coords, stream.valid)

    def _wanted(self, eligible: Tensor) -> Tensor:
        """[b]: how many tokens of each row are in M."""
        return share(eligible, self.config.ratio)

    def costs(self, lengths: Mapping[str, int], masked: Iterable[str] = ()) -> list[Cost]:
        asked = max(1, round(self.config.ratio * lengths[self.stream]))
        return [*model_costs(self.model, lengths, masked, {self.head: asked}), *self.own_costs()]

    def flops(self, batch: Batch) -> int:
        if self.stream not in batch:
            return 0
        stream = batch[self.stream]
        rows, n = stream.values.shape
        found = model_costs(self.model, {name: other.values.shape[1] for name, other in batch.items()})
        head = next(cost.flops for cost in found if cost.place == f"heads.{self.head}") // n
        trunks = sum(cost.flops for cost in found if not cost.place.startswith("heads."))
        return rows * trunks + head * int(self._wanted(self._eligible(stream)).sum())

    def choose(self, stream: Stream) -> Tensor:
        """[b n] bool: M."""
        eligible = self._eligible(stream)
        return self.masker.choose(stream.coords, eligible, self._wanted(eligible))

    def corrupt(self, stream: Stream, chosen: Tensor) -> Stream:
        """The stream as the model sees it."""
        dice = torch.rand(stream.values.shape, device=stream.values.device)
        values = torch.where(chosen & (dice < self.config.mask), self.mask_id, stream.values)
        swap = chosen & (dice >= self.config.mask) & (dice < self.config.mask + self.config.random)
        others = torch.randint(self.size, values.shape, device=values.device)
        return stream._replace(values=torch.where(swap, others, values))

    def draw(self, batch: Batch) -> dict[str, Tensor]:
        if self.stream not in batch:
            return {}
        chosen = self.choose(batch[self.stream])
        return {"chosen": chosen, "seen": self.corrupt(batch[self.stream], chosen).values}

    def forward(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> Loss:
        if self.stream not in batch:
            return self.nothing()
        stream = batch[self.stream]
        drawn = self.draw(batch) if drawn is None else drawn
        chosen = drawn["chosen"]
        seen = {**batch, self.stream: stream._replace(values=drawn["seen"])}
        whole = self.model.trunks[self.trunk](seen, self.model.earlier(seen, self.trunk))
        hidden = whole.of(self.stream).x
        found = told(self.model, self.head, hidden[chosen], stream.values[chosen])
        terms = {"nats": (found.nats, found.count), "accuracy": (found.right, found.count)}
        return Loss(found.loss, found.count, terms, {"hidden": hidden.detach()})

    @torch.no_grad()
    def exhibits(self, samples: Sequence[dict[str, Any]], seed: int = 0) -> list[Exhibit]:
        modality = self.model.modalities[self.stream]
        raws = [sample[self.stream] for sample in samples if sample.get(self.stream) is not None][:6]
        if not raws:
            return []
        torch.manual_seed(seed)
        batch = self.model.tokenize([{self.stream: raw} for raw in raws])[self.stream].to(self.model.device)
        batch = batch.slice(0, 64)
        chosen = self.choose(batch)
        seen = batch._replace(values=torch.where(chosen, self.mask_id, batch.values))
        hidden = self.model.trunks[self.trunk]({self.stream: seen}).of(self.stream).x
        guess = torch.where(chosen, self.model.head(self.head, hidden).argmax(-1), batch.values)
        rows: list[list[tuple[str | None, Any]]] = []
        for row, known, filled, kept in zip(batch.values, chosen, guess, self._eligible(batch)):
            row, known, filled = row[kept], known[kept], filled[kept]
            hit = row == filled
            pieces = [modality.tokenizer.piece(int(id)) for id in row]
            between = "" if all(len(piece) == 1 for piece in pieces) else " "
            asked = between.join("_" if hide else piece for piece, hide in zip(pieces, known))
            marked = [
                piece if ok else f"{piece}→{modality.tokenizer.piece(int(id))}"
                for piece, id, ok, hide in zip(pieces, filled, hit, known)
                if hide
            ]
            rows.append(
                [(None, asked), (None, " ".join(marked)), (None, f"{int(hit[known].sum())}/{int(known.sum())}")]
            )
        columns = ["seen", "hidden (→ filled in, where wrong)", "right"]
        return [Exhibit("hidden tokens, filled in (held out)", columns, rows)]

    def baselines(self, train: Sequence[Batch], held_out: Sequence[Batch]) -> dict[str, dict[str, float]]:
        """What the frequencies of tokens give, with what is left at a hidden place but not its neighbours.

        P(seen v | was t) = stays [v = t] + swapped;   P(was t | seen v) = p_t P(v | t) / (stays p_v + swapped)
        """

        def shares(batches: Sequence[Batch], added: float) -> Tensor:
            counts = torch.full((self.size,), added, dtype=torch.float64)
            for batch in batches:
                stream = batch[self.stream]
                values = stream.values if stream.valid is None else stream.values[stream.valid]
                counts += torch.bincount(values[~self.special.cpu()[values]], minlength=self.size)
            return counts / counts.sum()

        p, q = shares(train, 1.0), shares(held_out, 0.0)
        stays, swapped = max(1 - self.config.mask - self.config.random, 0.0), self.config.random / self.size
        nats = -self.config.mask * p.log()
        if stays + swapped > 0:
            seen = (stays * p + swapped).log()
            nats -= self.config.random * p.log() + self.size * _xlogx(swapped) - swapped * seen.sum()
            nats -= stays * (p.log() - seen) + _xlogx(stays + swapped) - _xlogx(swapped)
        return {"token frequencies (unigram)": {"nats": float((q * nats).sum())}}


def _xlogx(x: float) -> float:
    return x * math.log(x) if x > 0 else 0.0
