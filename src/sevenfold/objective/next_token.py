"""Next-token prediction, over one stream or over several in any order.

    L = - sum_i log p(x_{i+1} | x_1 … x_i)

With several streams the trunk reads them one after the other, and each row of a batch follows one of `orders`:
[caption, image] learns to draw what a caption says, [image, caption] to say what a picture shows, [image] alone is the
unconditional half of guidance. The last token of what comes before predicts the first token of the next stream.

Radford 2019 (GPT-2); any-to-any streams: Chameleon, arXiv:2405.09818; DALL-E, arXiv:2102.12092.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.assembly.cost import Cost
from sevenfold.assembly.cost.model import model_costs
from sevenfold.assembly.head import HeadConfig
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.assembly.prompt import reads
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Batch, Hidden, Loss, Stream
from sevenfold.objective import Exhibit, Objective, has_head, the_trunk, unigram
from sevenfold.objective._following import following
from sevenfold.objective._told import Told, told

BEGUN = 60
"""Letters of a held-out item that are given where nothing can be drawn without a beginning."""
DRAWN = 200
"""Tokens that are drawn to be looked at."""


class NextToken(Objective):
    class Config(Objective.Config):
        trunk: str | None = None
        """The causal trunk; by default the only one."""
        stream: str | None = None
        """The stream to predict; by default all that the trunk reads."""
        orders: tuple[tuple[str, ...], ...] = ()
        """In which orders (and subsets) the streams are read; by default as the trunk names them."""
        shares: tuple[float, ...] = ()
        """The share of a batch's rows for each of orders; by default equal."""
        weights: dict[str, float] = {}
        """Weight of a stream's tokens in the loss; 1 unless given."""
        smoothing: float = Field(0.0, ge=0, lt=1)
        """Label smoothing in training."""

    in_pieces = True

    @classmethod
    def example(cls) -> dict[str, Any]:
        recipe = super().example()
        recipe["trunks"]["enc"]["mask"] = {"causal": True}
        return recipe

    def initial(self, batch: Batch) -> float | None:
        return (
            math.log(self.model.modalities[self.predicted[0]].tokenizer.size or 1) if len(self.predicted) == 1 else None
        )

    @classmethod
    def heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, HeadConfig]:
        name = the_trunk(model, config.trunk)
        trunk = model.trunks[name]
        if not trunk.mask.causal:
            raise ConfigError(
                f"objective: next_token needs trunks.{name}.mask.causal: true, or it would see what it predicts"
            )
        streams = [given for given in trunk.inputs if given in model.streams]
        for order in config.orders:
            if not order or any(stream not in streams for stream in order):
                raise ConfigError(
                    f"objective.orders: {list(order)} is not made of {streams}, which trunk {name!r} reads"
                )
        if config.shares and len(config.shares) != len(config.orders):
            raise ConfigError(f"objective.shares: {len(config.shares)} shares for {len(config.orders)} orders")
        if config.shares and (min(config.shares) < 0 or sum(config.shares) <= 0):
            raise ConfigError("objective.shares: shares are positive numbers")
        if config.stream is not None and config.stream not in streams:
            raise ConfigError(f"objective.stream: trunk {name!r} does not read {config.stream!r}, but {streams}")
        predicted = [config.stream] if config.stream else streams
        others = [given for given in trunk.inputs if given not in streams]
        for order in config.orders or [streams]:
            if trunk.mask.prefix and not others and len(order) > 1 and order[0] in predicted:
                raise ConfigError(
                    f"objective.stream: the tokens of {order[0]!r} see each other (trunks.{name}.mask.prefix), so they "
                    "cannot be predicted: name another stream"
                )
        found = {}
        for stream in predicted:
            if has_head(model, name, stream) is None:
                found[stream] = HeadConfig(trunk=name, stream=stream, projection="tied")
        return found

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.trunk = the_trunk(model.config, config.trunk)
        streams = [given for given in model.config.trunks[self.trunk].inputs if given in model.config.streams]
        self.predicted = [config.stream] if config.stream else streams
        for stream in self.predicted:
            if model.modalities[stream].tokenizer.size is None:
                raise ConfigError(
                    f"objective: next_token predicts ids, and stream {stream!r} has vectors: choose a tokenizer with ids "
                    "(quantized_patch, binary_patch), or another objective"
                )
        self.head_of = {stream: has_head(model.config, self.trunk, stream) for stream in self.predicted}
        inputs = tuple(model.config.trunks[self.trunk].inputs)
        self.orders: list[tuple[str, ...]] = [tuple(order) for order in config.orders] or [inputs]
        shares = config.shares or [1.0] * len(self.orders)
        self.ends = [end / sum(shares) for end in accumulate(shares)]

    def costs(self, lengths: Mapping[str, int], masked: Iterable[str] = ()) -> list[Cost]:
        """With several orders: those of a row that has all streams."""
        first, trunk = self.orders[0][0], self.model.trunks[self.trunk]
        alone = trunk.tokens is None and first == trunk.config.inputs[0]
        asked = {
            head: lengths[name] - (alone and name == first)
            for name, head in self.head_of.items()
            if head is not None and name in lengths
        }
        return [*model_costs(self.model, lengths, masked, asked), *self.own_costs()]

    @property
    def alike(self) -> bool:
        return len(self.ends) > 1

    def draw(self, batch: Batch) -> dict[str, Tensor]:
        """order [b]: which of `orders` each row follows, in the given shares."""
        values = next(iter(batch.values())).values
        order = torch.zeros(len(values), dtype=torch.long, device=values.device)
        for end in self.ends[:-1]:
            order[round(len(values) * end) :] += 1
        return {"order": order}

    def forward(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> Loss:
        if not any(name in self.predicted for name in batch):
            return self.nothing()
        followed = (self.draw(batch) if drawn is None else drawn)["order"]
        losses: list[tuple[Tensor, Tensor]] = []
        sums: dict[str, list[Tensor]] = {}
        outputs: dict[str, Tensor] = {}
        earlier = self._earlier(batch)
        inputs, told = self.model.config.trunks[self.trunk].inputs, self.model.config.trunks[self.trunk].condition
        for number, order in enumerate(self.orders):
            part = {name: stream for name, stream in batch.items() if name in order or name == told}
            before = earlier
            if len(self.orders) > 1:
                rows = (followed == number).nonzero()[:, 0]
                part = {name: stream.rows(rows) for name, stream in part.items()}
                before = {name: _rows(hidden, rows) for name, hidden in earlier.items()}
            some = next(iter(part.values()), None)
            if some is None or not len(some.values) or not any(name in self.predicted for name in part):
                continue
            names = (*[n for n in before if n in inputs and n not in order], *order)
            hidden = self.model.trunks[self.trunk](part, before, names)
            for name, stream in part.items():
                if name in self.predicted:
                    found = self._predict(hidden, name, stream)
                    weight = self.config.weights.get(name, 1.0)
                    losses.append((weight * found.loss, weight * found.count))
                    kept = sums.setdefault(name, [found.nats.new_zeros(()) for _ in range(3)])
                    sums[name] = [kept[0] + found.nats, kept[1] + found.count, kept[2] + found.right]
            outputs["hidden"] = hidden.x.detach()
        terms = {}
        for name, (loss, n, right) in sums.items():
            prefix = f"{name}/" if len(self.predicted) > 1 else ""
            terms[f"{prefix}nats"], terms[f"{prefix}accuracy"] = (loss, n), (right, n)
        if not losses:
            return self.nothing()
        total, count = (sum(parts[1:], parts[0]) for parts in zip(*losses))
        return Loss(total, count, terms, outputs)

    def _earlier(self, batch: Batch) -> dict[str, Hidden]:
        """Earlier trunks that the trunk reads, those whose inputs are there."""
        config = self.model.config.trunks[self.trunk]
        wanted = [name for name in (*config.inputs, config.cross_attends or "") if name in self.model.trunks]
        done = self.model.earlier(batch, self.trunk) if wanted else {}
        return {name: done[name] for name in wanted if name in done}

    def _predict(self, hidden: Hidden, name: str, stream: Stream) -> Told:
        """The loss of one stream's tokens, each predicted from the token that is read before it."""
        x, targets = following(hidden, name, stream.values)
        head = self.head_of[name]
        assert head is not None
        return told(self.model, head, x, targets, self.config.smoothing if self.training else 0.0, most=True)

    @torch.no_grad()
    def exhibits(self, samples: Sequence[dict[str, Any]], seed: int = 0) -> list[Exhibit]:
        found = []
        for stream in self.predicted:
            found.append(self._drawn(stream, samples, seed))
            first = [order[0] for order in self.orders if len(order) == 2 and order[-1] == stream]
            inputs = self.model.config.trunks[self.trunk].inputs
            beside = [name for name in reads(self.model, self.trunk) if name not in inputs]
            for other in dict.fromkeys([*(name for name in first if name in self.model.modalities), *beside]):
                raws = [sample[other] for sample in samples if sample.get(other) is not None][:8]
                if not raws:
                    continue
                made = self.model.generate(stream=stream, given={other: raws}, seed=seed, temperature=0.8)
                rows = [[(other, raw), (stream, item)] for raw, item in zip(raws, made)]
                found.append(Exhibit(f"{stream} given {other} (held out)", [other, stream], rows))
        return found

    def _drawn(self, stream: str, samples: Sequence[dict[str, Any]], seed: int) -> Exhibit:
        """Items drawn from nothing; where a stream has no start, held-out beginnings and how they go on."""
        reach = self.model.trunks[self.trunk].position.reach
        length = DRAWN if reach is None or reach > DRAWN + 4 * BEGUN else None  # None: as many as fit
        drawing: dict[str, Any] = {"stream": stream, "seed": seed, "length": length, "temperature": 0.8}
        if self.model.trunks[self.trunk].tokens is not None or self.model.modalities[stream].around()[0]:
            drawn = self.model.generate(count=4, **drawing)
            return Exhibit(f"{stream}, drawn from nothing", ["drawn"], [[(stream, item)] for item in drawn])
        raws = [sample[stream] for sample in samples if isinstance(sample.get(stream), str)][:4]
        begun = [raw[:BEGUN] for raw in raws]
        drawn = self.model.generate(begun, **drawing) if begun else []
        rows: list[list[tuple[str | None, Any]]] = [
            [(stream, begin), (stream, item[BEGUN:] if item.startswith(begin) else item), (stream, raw[BEGUN:][:200])]
            for begin, item, raw in zip(begun, drawn, raws)
        ]
        return Exhibit(f"{stream}, gone on with (held out)", ["beginning", "drawn", "how it really goes on"], rows)

    def likelihoods(self) -> dict[str, str]:
        return {stream: f"{stream}/nats" if len(self.predicted) > 1 else "nats" for stream in self.predicted}

    def baselines(self, train: Sequence[Batch], held_out: Sequence[Batch]) -> dict[str, dict[str, float]]:
        found = {}
        for stream in self.predicted:
            size = self.model.modalities[stream].tokenizer.size
            assert size is not None
            found[self.likelihoods()[stream]] = unigram(
                [_ids(b[stream]) for b in train], [_ids(b[stream]) for b in held_out], size
            )
        return {"token frequencies (unigram)": found}


def _ids(stream: Stream) -> Tensor:
    return stream.values if stream.valid is None else stream.values[stream.valid]


def _rows(hidden: Hidden, rows: Tensor) -> Hidden:
    return hidden.each(lambda part: part[rows])
