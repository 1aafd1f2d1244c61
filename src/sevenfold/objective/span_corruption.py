"""Span corruption: spans of a text are taken out, and the decoder writes them, each behind the sentinel that stands in its place.

    x = The owl finds 7 stones      source  The <0> finds <1> .      target  <0> owl <1> 7 stones .  end
    L = - sum_i log p(target_i | target_<i, source)

Raffel 2019 (T5), arXiv:1910.10683 sections 3.1.4 and 3.3; mT5, arXiv:2010.11934; on proteins ProtT5, doi:10.1109/TPAMI.2021.3095381.
The law of the spans is in _spans.py. One stream is read from the data; source and target are made of it. Documents that are
laid end to end stand in one source, as T5 was trained.
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
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Batch, Loss, Stream
from sevenfold.modality import Modality
from sevenfold.objective import Exhibit, Objective, has_head, the_stream, the_trunk, unigram
from sevenfold.objective._following import following
from sevenfold.objective._spans import fillings, noise_mask, numbers, with_gaps, written
from sevenfold.objective._told import told
from sevenfold.objective.masker import all_eligible


class SpanCorruption(Objective):
    class Config(Objective.Config):
        trunk: str | None = None
        """The decoder: a causal trunk that reads the encoder by cross-attention; by default the last."""
        source: str | None = None
        """The stream that spans are taken out of; by default the only one that the encoder reads."""
        target: str | None = None
        """The stream that is written; by default the only one that the decoder reads. It has the source's `table`."""
        ratio: float = Field(0.15, gt=0, lt=1)
        """The share of tokens taken out."""
        length: float = Field(3.0, ge=1)
        """Tokens of a span, on average."""

    in_pieces = True

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "data": {"kind": "digits", "limit": 48},
            "streams": {
                "source": {"kind": "text", "field": "caption", "tokenizer": "sentinels", "pack": False},
                "target": {"kind": "text", "tokenizer": "sentinels", "table": "source"},
            },
            "trunks": {
                "enc": {"inputs": ["source"], "width": 32, "depth": 1},
                "dec": {
                    "inputs": ["target"],
                    "width": 32,
                    "depth": 1,
                    "cross_attends": "enc",
                    "mask": {"causal": True},
                },
            },
            "objective": {"kind": cls.kind},
        }

    @classmethod
    def _wired(cls, config: Any, model: ModelConfig) -> tuple[str, str, str]:
        """(decoder, source, target)."""
        decoder = the_trunk(model, config.trunk or list(model.trunks)[-1])
        trunk = model.trunks[decoder]
        encoder = trunk.cross_attends
        if encoder is None or not trunk.mask.causal:
            raise ConfigError(
                f"objective: span_corruption needs a causal trunk that reads an encoder: set trunks.{decoder}.cross_attends and "
                "mask.causal"
            )
        if model.trunks[encoder].mask.causal:
            raise ConfigError(
                f"objective: span_corruption needs an encoder that sees both sides: set trunks.{encoder}.mask.causal to false"
            )
        read = [[name for name in model.trunks[one].inputs if name in model.streams] for one in (encoder, decoder)]
        source = the_stream(model, config.source, read[0], "source")
        return decoder, source, the_stream(model, config.target, read[1], "target")

    @classmethod
    def makes(cls, config: Any, model: ModelConfig) -> Mapping[str, str]:
        _, source, target = cls._wired(config, model)
        if model.streams[target].table != source:
            raise ConfigError(f"streams.{target}.table: span_corruption writes what it took out of {source!r}: name it")
        return {target: source}

    @classmethod
    def heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, HeadConfig]:
        decoder, _, target = cls._wired(config, model)
        if has_head(model, decoder, target) is not None:
            return {}
        projection: Any = {"kind": "tied"}
        return {target: HeadConfig(trunk=decoder, stream=target, projection=projection)}

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.decoder, self.source, self.target = self._wired(config, model.config)
        self.around = {name: model.modalities[name].around() for name in (self.source, self.target)}
        self._check(model.modalities[self.source])
        head = has_head(model.config, self.decoder, self.target)
        assert head is not None
        self.head = head
        tokenizer = model.modalities[self.source].tokenizer
        self.size = tokenizer.size or 1
        sentinels = torch.tensor(list(tokenizer.sentinels))
        self.register_buffer("sentinels", sentinels, persistent=False)
        self.sentinels: Tensor

    def _check(self, modality: Modality) -> None:
        tokenizer, length = modality.tokenizer, modality.config.length
        if not len(tokenizer.sentinels):
            raise ConfigError(
                f"streams.{self.source}.tokenizer: span_corruption needs sentinels, and the {tokenizer.kind} tokenizer has none: "
                f"{{kind: sentinels, of: {{kind: {tokenizer.kind}}}}}"
            )
        if not self.around[self.target][0]:
            raise ConfigError(
                f"streams.{self.target}: what is written needs a first token: set ends to true, or begin to an id"
            )
        if length is None:
            return
        spans = int(numbers(torch.tensor([length]), self.config.ratio, self.config.length)[1])
        if spans > len(tokenizer.sentinels):
            raise ConfigError(
                f"streams.{self.source}.tokenizer: items of {length} tokens have {spans} spans, and there are "
                f"{len(tokenizer.sentinels)} sentinels: set count, or a smaller length"
            )
        long, reach = self.lengths(length)[1], self.model.trunks[self.decoder].position.reach
        if reach is not None and reach < long:
            raise ConfigError(
                f"trunks.{self.decoder}.position: reaches {reach} tokens, and {long} are written of items of {length}"
            )

    def initial(self, batch: Batch) -> float | None:
        return math.log(self.size)

    # The two streams
    def body(self, stream: Stream) -> Tensor:
        """[b n] bool: what spans are taken out of: all tokens but padding and the ids that stand around an item."""
        body = all_eligible(stream.coords, stream.valid).clone()
        before, behind = self.around[self.source]
        for id in before:
            first = body & (body.long().cumsum(1) == 1)
            body &= ~(first & (stream.values == id))
        for id in reversed(behind):
            last = body & (body.flip(1).long().cumsum(1).flip(1) == 1)
            body &= ~(last & (stream.values == id))
        return body

    def corrupted(self, stream: Stream, noise: Tensor) -> Batch:
        """Source and target, from a stream and which of its tokens are taken out, [b n] bool. Rows that lose nothing are
        padding in both."""
        body = self.body(stream) & noise.any(1, keepdim=True)
        given = with_gaps(stream.values, body, noise, self.sentinels)
        asked = fillings(stream.values, noise, self.sentinels)
        return {
            self.source: written(*given, *self.around[self.source]),
            self.target: written(*asked, *self.around[self.target]),
        }

    def lengths(self, tokens: int) -> tuple[int, int]:
        """Tokens of source and target, of an item of so many, the ids around it counted."""
        around = [sum(map(len, self.around[name])) for name in (self.source, self.target)]
        body = max(tokens - around[0], 0)
        noise, spans = (int(number) for number in numbers(torch.tensor([body]), self.config.ratio, self.config.length))
        return (body - noise + spans + around[0], noise + spans + around[1]) if noise else (1, 1)

    def draw(self, batch: Batch) -> dict[str, Tensor]:
        if self.source not in batch:
            return {}
        return {"noise": noise_mask(self.body(batch[self.source]), self.config.ratio, self.config.length)}

    def forward(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> Loss:
        if self.source not in batch:
            return self.nothing()
        noise = (self.draw(batch) if drawn is None else drawn)["noise"]
        if not bool(noise.any()):
            return self.nothing()
        made = self.corrupted(batch[self.source], noise)
        seen = {**batch, **made}
        hidden = self.model.trunks[self.decoder](seen, self.model.earlier(seen, self.decoder))
        x, targets = following(hidden, self.target, made[self.target].values)
        found = told(self.model, self.head, x, targets)
        taken = self._taken(targets).flatten()
        terms = {
            "nats": (found.nats, found.count),
            "accuracy": (found.right, found.count),
            "taken/nats": (found.each[taken].sum(), taken.sum()),
        }
        return Loss(found.loss, found.count, terms, {"hidden": hidden.x.detach()})

    def _taken(self, targets: Tensor) -> Tensor:
        """Which targets are tokens of the text: neither sentinels nor what stands behind them."""
        known = torch.cat([self.sentinels, self.sentinels.new_tensor([-100, *self.around[self.target][1]])])
        return ~torch.isin(targets, known)

    # What it costs
    def costs(self, lengths: Mapping[str, int], masked: Iterable[str] = ()) -> list[Cost]:
        given, asked = self.lengths(lengths[self.source])
        return self._costs({**lengths, self.source: given, self.target: asked}, masked)

    def _costs(self, lengths: Mapping[str, int], masked: Iterable[str] = ()) -> list[Cost]:
        first = self.model.trunks[self.decoder].tokens is None
        predicted = {self.head: lengths[self.target] - first}
        shaded = {*masked, self.target} if self.source in masked else masked
        return [*model_costs(self.model, lengths, shaded, predicted), *self.own_costs()]

    def flops(self, batch: Batch) -> int:
        if self.source not in batch:
            return 0
        tokens = all_eligible(batch[self.source].coords, batch[self.source].valid).sum(1)
        each = [self.lengths(number) for number in set(tokens.tolist())]
        given, asked = (max(pair[side] for pair in each) for side in (0, 1))
        lengths = {name: stream.values.shape[1] for name, stream in batch.items()}
        costs = self._costs({**lengths, self.source: given, self.target: asked})
        return len(tokens) * sum(cost.flops for cost in costs)

    # What is shown
    @torch.no_grad()
    def exhibits(self, samples: Sequence[dict[str, Any]], seed: int = 0) -> list[Exhibit]:
        raws = [sample[self.source] for sample in samples if sample.get(self.source) is not None][:6]
        if not raws:
            return []
        torch.manual_seed(seed)
        stream = self.model.tokenize([{self.source: raw} for raw in raws])[self.source].to(self.model.device)
        made = self.corrupted(stream, self.draw({self.source: stream})["noise"])
        hidden = self.model.trunks[self.decoder](made, self.model.earlier(made, self.decoder))
        x, targets = following(hidden, self.target, made[self.target].values)
        guess = torch.where(targets == -100, -100, self.model.head(self.head, x).argmax(-1))
        source = made[self.source]
        given = source.values.masked_fill(~all_eligible(source.coords, source.valid), -100)
        rows: list[list[tuple[str | None, Any]]] = [
            [(None, self._shown(ids[ids >= 0])) for ids in row] for row in zip(given, targets, guess)
        ]
        columns = ["with gaps", "what was taken out", "the likeliest token at each place, given those before it"]
        return [Exhibit("spans, filled in (held out)", columns, rows)]

    def _shown(self, ids: Tensor) -> str:
        pieces = [self.model.modalities[self.source].tokenizer.piece(int(id)) for id in ids[:200]]
        plain = [piece for id, piece in zip(ids.tolist(), pieces) if id not in set(self.sentinels.tolist())]
        return ("" if all(len(piece) == 1 or piece.startswith("<") for piece in plain) else " ").join(pieces)

    @torch.no_grad()
    def baselines(self, train: Sequence[Batch], held_out: Sequence[Batch]) -> dict[str, dict[str, float]]:
        """The frequencies of targets, and those of the tokens that were taken out among themselves."""
        found: list[list[Tensor]] = [[], []]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for batches, ids in zip((train, held_out), found):
                for stream in (batch[self.source] for batch in batches if self.source in batch):
                    for piece in self._windows(stream):
                        target = self.corrupted(piece, self.draw({self.source: piece})["noise"])[self.target]
                        valid = all_eligible(target.coords, target.valid).clone()
                        valid[:, : len(self.around[self.target][0])] = False
                        ids.append(target.values[valid])
        if not found[1]:
            return {}
        inside = [[ids[self._taken(ids)] for ids in several] for several in found]
        return {
            "token frequencies (unigram)": {
                "nats": unigram(found[0], found[1], self.size),
                "taken/nats": unigram(inside[0], inside[1], self.size),
            }
        }

    def _windows(self, stream: Stream) -> list[Stream]:
        """A stream as it is trained on: where items are laid end to end, whole ones come cut into windows."""
        length = self.model.modalities[self.source].config.length
        if length is None or stream.values.shape[1] <= length:
            return [stream]
        rows = [stream.values[row][: self._long(stream, row)] for row in range(len(stream.values))]
        cut = [
            row[: len(row) // length * length].reshape(-1, length) if len(row) > length else row[None] for row in rows
        ]
        return [Stream(ids, torch.arange(ids.shape[1]).expand(len(ids), -1)[..., None]) for ids in cut if ids.numel()]

    def _long(self, stream: Stream, row: int) -> int:
        return stream.values.shape[1] if stream.valid is None else int(stream.valid[row].sum())
