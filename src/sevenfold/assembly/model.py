"""A model: streams, an ordered set of trunks (a trunk reads streams and earlier trunks), and heads.

| system          | trunks                                                                      |
|-----------------|-----------------------------------------------------------------------------|
| BERT, ViT       | enc: inputs [x]                                                             |
| GPT             | the same, causal                                                            |
| T5              | enc: inputs [src] · dec: inputs [tgt], cross_attends enc, causal            |
| early fusion    | both: inputs [image, text]                                                  |
| two towers      | v: inputs [image] · t: inputs [text]                                        |
| middle fusion   | v: inputs [image] · lm: inputs [v, text], causal                            |
| MAE             | enc: inputs [image] (the visible ones) · dec: inputs [enc], narrow          |
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sevenfold.assembly import generation
from sevenfold.assembly.adapter import Adapter, put_in
from sevenfold.assembly.block import Block
from sevenfold.assembly.head import Head, HeadConfig
from sevenfold.assembly.initialisation import Initialisation
from sevenfold.assembly.packing import pack
from sevenfold.assembly.pool import POOLS, WIDER, pool
from sevenfold.assembly.trunk import Trunk
from sevenfold.assembly.wiring import check_wiring
from sevenfold.blocks.projection.packing import Packing
from sevenfold.core import part
from sevenfold.core.errors import ConfigError, DataError, did_you_mean
from sevenfold.core.initial import Ruled, ruled
from sevenfold.core.modules import ModuleDict
from sevenfold.core.types import Batch, Hidden, Stream
from sevenfold.data.collate import collate
from sevenfold.modality import Modality


class ModelConfig(part.Config):
    """What a model is, without its weights."""

    streams: dict[part.Name, Modality.Config] = Field(min_length=1)
    """Name → modality."""
    trunks: dict[part.Name, Trunk.Config] = Field(min_length=1)
    """Name → trunk, in order: a trunk reads streams and earlier trunks."""
    heads: dict[part.Name, HeadConfig] = {}
    """Name → head. The objective adds those that it needs."""
    init: Initialisation.Config = part.default("standard")
    """The scheme of the first weights."""
    adapter: Adapter.Config | None = None
    """A few new weights in a model that is frozen otherwise; null for none."""


class Model(Ruled):
    """Streams in, representations out. Its modalities must be ready (fitted) before it is built."""

    Config = ModelConfig

    def __init__(self, config: ModelConfig, modalities: Mapping[str, Modality]):
        super().__init__()
        check_wiring(config)
        self.config, self.modalities = config, dict(modalities)
        self.luggage: dict[str, Tensor] = {}
        """What came with published weights and is no part of the model: kept for the way back (sevenfold.family)."""
        self.published: dict[str, Any] = {}
        """The published record that it was made from (sevenfold.exchange.origin); empty for others."""
        self.packed: str | None = None
        """In what form its projections are kept, where they can only be read (see `quantize`)."""
        self.trunks: ModuleDict[Trunk] = ModuleDict()
        for name, trunk in config.trunks.items():
            try:
                self.trunks[name] = Trunk(trunk, self.modalities, dict(self.trunks.items()))
            except ConfigError as error:
                raise ConfigError(f"trunks.{name}: {error}") from None
        self.heads: ModuleDict[Head] = ModuleDict()
        for name, head in config.heads.items():
            trunk = config.trunks[head.trunk]
            norm = (trunk.blocks or [Block.Config()])[-1].last_norm
            if trunk.condition is not None:  # a head reads none
                norm = part.find("normalization", "layer").Config()
            self.heads[name] = Head(head, trunk.width * WIDER.get(head.pool, 1), self._outputs(name, head), norm)
        self.rates: dict[str, float] = config.init.build().apply(self)
        self.adapter, self.adapted = put_in(self, config.adapter)
        for _ in ruled(self):  # every parameter has a rule
            pass

    def _outputs(self, name: str, head: HeadConfig) -> int:
        if head.outputs is not None:
            return head.outputs
        if head.stream is None:
            raise ConfigError(f"heads.{name}: give the stream that it predicts, or how many outputs it has")
        tokenizer = self.modalities[head.stream].tokenizer
        if head.projection.part.reads_table and tokenizer.size is None:
            raise ConfigError(
                f"heads.{name}: a tied head predicts ids, and stream {head.stream!r} has vectors: choose a tokenizer with "
                "ids (quantized_patch, binary_patch), or an objective for vectors (mae)"
            )
        outputs = tokenizer.size or tokenizer.features
        assert outputs is not None
        return outputs

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    # What it computes
    def forward(self, batch: Batch) -> dict[str, Hidden]:
        """Every trunk's representation, in order; trunks none of whose inputs are in the batch, or whose memory is not
        there, are left out."""
        return self.earlier(batch, None)

    def earlier(self, batch: Batch, stop: str | None, only: Collection[str] | None = None) -> dict[str, Hidden]:
        """The representations of the trunks that stand before `stop`, as in forward; `only` those that are named."""
        done: dict[str, Hidden] = {}
        for name, trunk in self.trunks.items():
            if name == stop:
                break
            if only is not None and name not in only:
                continue
            memory = trunk.config.cross_attends
            inputs = trunk.config.inputs
            fed = not inputs or any(given in batch or given in done for given in inputs)
            if fed and (memory is None or memory in done):
                done[name] = trunk(batch, done)
        return done

    def table(self, name: str) -> Tensor | None:
        """The embedding table that a head reads, [v d], where it reads one."""
        head = self.heads[name]
        if not head.projection.reads_table:
            return None
        assert head.config.stream is not None
        embed: Any = self.trunks[head.config.trunk].embeds[head.config.stream]
        return embed.weight

    def head(self, name: str, x: Tensor) -> Tensor:
        """x [… d] of the head's trunk → [… outputs]."""
        return self.heads[name](x, self.table(name))

    def logits(self, ids: Tensor, valid: Tensor | None = None) -> Tensor:
        """Ids [b n] of a language model's stream → logits [b n v]; `valid` [b n] is False at padding."""
        named = [
            (name, head.stream)
            for name, head in self.config.heads.items()
            if head.stream in self.config.trunks[head.trunk].inputs and head.pool == "none"
            and self.modalities[head.stream].tokenizer.size is not None
        ]  # fmt: skip
        if len(named) != 1:
            raise ConfigError("logits: the model has no head, or several, for a stream of ids that its trunk reads")
        name, stream = named[0]
        coords = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)[..., None]
        if valid is not None:
            coords = (valid.long().cumsum(1) - 1).clamp(min=0)[..., None]
        done = self({stream: Stream(ids, coords, valid)})
        trunk = self.config.heads[name].trunk
        return self.head(name, (done[trunk].of(stream) if done[trunk].spans else done[trunk]).x)

    # What people do with it
    def tokenize(self, raws: Sequence[Any]) -> Batch:
        """Raw items → a padded batch. With several streams an item is a dict from stream to raw item (None: absent
        from all of them); with one stream it is the raw item itself."""
        return collate([self._tokens(raw) for raw in raws])

    def _tokens(self, raw: Any) -> dict[str, Any]:
        if not isinstance(raw, dict):
            fed = [name for name in self.modalities if any(name in t.config.inputs for t in self.trunks.values())]
            if len(fed) != 1:
                raise ConfigError(f"this model has the streams {fed}: give each item as a dict from stream to raw item")
            raw = {fed[0]: raw}
        for name in raw:
            if name not in self.modalities:
                raise ConfigError(f"there is no stream {name!r}{did_you_mean(name, self.modalities)}")
        found = {}
        for name, value in raw.items():
            if value is not None:
                try:
                    found[name] = self.modalities[name].tokens(value)
                except ValueError as error:
                    raise DataError(f"stream {name!r}: {error}") from None
        return found

    @torch.inference_mode()
    def embed(
        self, raws: Sequence[Any], pool: str = "mean", trunk: str | None = None, batch_size: int = 64
    ) -> np.ndarray:
        """Raw items → representations, float32 [len(raws) width]; with pool="none" a list of [n width].

        `trunk` defaults to the last one that reads streams and not only other trunks.
        """
        found = []
        for start in range(0, len(raws), batch_size):
            found.extend(self.embed_batch(self.tokenize(raws[start : start + batch_size]), pool, trunk))
        if pool == "none":
            return found  # type: ignore[return-value]
        return np.stack(found) if found else np.zeros((0, next(iter(self.config.trunks.values())).width), np.float32)

    @torch.inference_mode()
    def embed_batch(self, batch: Batch, pool: str = "mean", trunk: str | None = None) -> list[np.ndarray]:
        """A batch → one array per row: [width], or [n width] with pool="none"."""
        check_pool(pool)
        if trunk is not None and trunk not in self.trunks:
            raise ConfigError(f"trunk: there is no {trunk!r}{did_you_mean(trunk, self.trunks)}")
        was = self.training
        self.eval()
        try:
            batch = to_device(batch, self.device)
            done = self(batch)
            reading = [name for name in done if any(given in batch for given in self.config.trunks[name].inputs)]
            name = trunk or (reading[-1] if reading else None)
            if name not in done:
                raise ConfigError(f"trunk: {name or 'none'} reads nothing of what is given: {', '.join(batch)}")
            return pooled(done[name], pool)
        finally:
            self.train(was)

    def generate(self, prompt: Any = None, **settings: Any) -> list[Any]:
        """Raw items of one stream, given others or their own beginning: see `draw`."""
        return [drawn.raw for drawn in generation.draw(self, prompt, logprobs=False, **settings)]

    def draw(self, prompt: Any = None, **settings: Any) -> list[generation.Drawn]:
        """The same with ids, log-probabilities and why each stopped: see `sevenfold.assembly.generation.draw`."""
        return generation.draw(self, prompt, **settings)

    def stream(self, prompt: Any = None, **settings: Any) -> Iterator[generation.Piece]:
        """The same, piece by piece as it is drawn: see `sevenfold.assembly.generation.stream`."""
        return generation.stream(self, prompt, **settings)

    def fill(self, items: Any = None, **settings: Any) -> list[Any]:
        """Raw items with what was hidden in them filled in: see `sevenfold.assembly.generation.fill`."""
        return [filled.raw for filled in generation.fill(self, items, **settings)]

    def quantize(self, kind: Packing.Config | str, heads: Packing.Config | str | None = None) -> Model:
        """This model itself, kept in fewer bytes for reading only: see `sevenfold.assembly.packing.pack`."""
        return pack(self, kind, heads)


def pooled(hidden: Hidden, how: str) -> list[np.ndarray]:
    """One float32 array per row: its pooled vector [d], or with "none" the vectors [n d] of its valid stream tokens."""
    if how != "none":
        return list(pool(hidden, how).float().cpu().numpy())
    start = max((hidden.spans or {}).get("registers", (0, 0))[1], (hidden.spans or {}).get("class", (0, 0))[1])
    x = hidden.x[:, start:].float().cpu().numpy()
    if hidden.valid is None:
        return list(x)
    valid = hidden.valid[:, start:].cpu().numpy()
    return [row[keep] for row, keep in zip(x, valid)]


def check_pool(how: str) -> None:
    if how != "none" and how not in POOLS:
        raise ConfigError(f"pool: there is no {how!r}{did_you_mean(how, ['none', *POOLS])}")


def to_device(batch: Batch, device: Any) -> Batch:
    return {name: stream.to(device) for name, stream in batch.items()}
