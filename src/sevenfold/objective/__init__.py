"""Objectives: a loss on a model, with everything that only training needs (corruption, extra heads, teachers, queues).

The contract of this room. The trainer knows nothing else: it calls `forward(batch) → Loss`, then `after_step`.
Random choices use torch's global generator, which the trainer seeds from (seed, step) before every call. Those that
say what is asked of each row are made in `draw`, for the whole batch: splitting it (`accumulate`) changes no loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sevenfold.assembly.cost import Cost
from sevenfold.assembly.cost.model import model_costs
from sevenfold.assembly.head import HeadConfig
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import part, ranks
from sevenfold.core.errors import ConfigError, did_you_mean
from sevenfold.core.initial import Care, Ruled, cares
from sevenfold.core.types import Batch, Hidden, Loss, Stream
from sevenfold.data.view import View
from sevenfold.modality import Modality
from sevenfold.objective.masker import Masker


class Exhibit(NamedTuple):
    """Something worth looking at: a table of which every cell is a raw item of a stream (or a plain text, stream None)."""

    title: str
    columns: list[str]
    rows: list[list[tuple[str | None, Any]]]


class Look(NamedTuple):
    """One of the ways in which an objective sees each item of a stream: the item after the stream's own views, which change
    training items only, and then these, which always change it (held-out items by a draw that stays the same)."""

    stream: str
    views: tuple[View.Config, ...] = ()
    modality: Modality | None = None
    """What makes tokens of the item, where that is not the stream's own (another model's tokenizer)."""


class Objective(part.Part, Ruled):
    """A loss on `model`. Parameters and buffers outside of `model` are the objective's own and are checkpointed too; the
    parameters have `rules`."""

    room = "objective"

    class Config(part.Config):
        pass

    decomposable: bool = True
    """Whether the loss of a batch is the sum of what its rows give on their own, so that accumulation is exact."""

    shares: ClassVar[bool] = False
    """Whether all that it needs of the model is what comes out of the trunks `through` (`reads`, then `judge`): several
    objectives on one model then share the pass."""
    through: tuple[str, ...] = ()

    squared: bool = False
    """Whether its loss is a squared error, and not nats: what a learned weight of it makes of it differs (`multi_task`)."""

    cached: ClassVar[bool] = False
    """Whether its loss is made of vectors of each row (`embed`, then `compare`): then a batch in pieces (`accumulate`) gives the
    loss and the gradients of the whole, though rows are compared (see sevenfold.training.cached)."""

    whole_items: ClassVar[bool] = False
    """Whether it needs items one by one, never laid end to end (`pack`)."""

    in_pieces: ClassVar[bool] = False
    """Whether its heads are asked through `_told`, which never holds all logits where they are many. For the planner."""

    watched: ClassVar[tuple[str, ...]] = ()
    """Terms that the progress bar shows beside the loss."""

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A tiny recipe that trains with this objective in seconds, as plain data. The conformance kit builds it."""
        return {
            "data": {"kind": "digits", "limit": 48},
            "streams": {"text": {"kind": "text", "field": "caption", "pack": False}},
            "trunks": {"enc": {"inputs": ["text"], "width": 32, "depth": 1}},
            "objective": {"kind": cls.kind},
        }

    def __init__(self, config: Any, model: Model):
        super().__init__()
        self.config, self.model = config, model

    def cares(self) -> dict[str, Care]:
        """How an optimizer treats each parameter, the model's and its own."""
        return cares(self, {f"model.{name}": rate for name, rate in self.model.rates.items()})

    @classmethod
    def models(cls, config: Any) -> dict[str, str]:
        """Name → run folder, published folder or id, of trained models that it reads and does not change (teachers). One that
        names some is built with them: `__init__(config, model, models)`."""
        return {}

    @classmethod
    def heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, HeadConfig]:
        """Heads that it needs on the model, besides those that the recipe names. `sizes`: stream → ids or features.

        Raises ConfigError, with the reason, when the streams and trunks cannot serve this objective.
        """
        return {}

    @classmethod
    def makes(cls, config: Any, model: ModelConfig) -> Mapping[str, str]:
        """Streams that it makes itself: stream → the stream of the data that it is made from. They are read from no field of a
        sample, and have the tokenizer of the other (`table`)."""
        return {}

    def looks(self) -> dict[str, Look]:
        """Name → Look, for objectives that see an item several times (two augmentations, small crops). A batch has a stream
        for each name; a stream that is looked at stands there itself only under a look of its own name."""
        return {}

    def aligned(self) -> dict[str, str]:
        """Stream → the stream whose tokens it says something of, one by one: items whose numbers of tokens differ cannot be
        read."""
        return {}

    def settle(self) -> None:
        """Called once, when the model has its first weights, its own or those of `start`: teachers copy them."""

    @property
    def alike(self) -> bool:
        """Whether the rows of all ranks must be as long as the longest of all: it draws something for them, or compares what
        they hold. Then every rank is sent the rows of all."""
        return type(self).draw is not Objective.draw

    def draw(self, batch: Batch) -> dict[str, Tensor]:
        """Random choices about the rows of a batch (what is hidden, in which order streams are read), each [b …]."""
        return {}

    def __call__(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> Loss:
        """`forward`, and to it what is `asked` times the count, in the term `balance`."""
        self.asked()
        loss: Loss = super().__call__(batch, drawn)
        loss = loss.share(ranks.sequence().size)
        extra = self.asked()
        return loss if extra is None else loss.with_balance(extra * loss.count)

    def asked(self) -> Tensor | None:
        """What parts of the model ask for in training (the balance of experts) since they were last asked: the mean over
        tokens of each, added up; None where nothing does."""
        parts: list[Any] = [module for module in self.modules() if hasattr(type(module), "penalty")]
        left = [module.penalty for module in parts if module.penalty is not None]
        for module in parts:
            module.penalty = None
        return torch.stack([total / tokens.clamp(min=1) for total, tokens in left]).sum() if left else None

    def forward(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> Loss:
        """The loss of a batch, or of some rows of one with the same rows of what was drawn; by default it draws itself.

        Padding, rows without some stream and batches without one are no targets: see `nothing`. One that is `cached` offers
        `embed` and `compare` instead.
        """
        found = ranks.data().all_gather_named(self.embed(batch, drawn))
        return self.nothing() if found is None else self.compared(found)

    def embed(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> dict[str, Tensor] | None:
        """Of one that is `cached`: tensors [k …] of the k rows that have all that it needs, from which `compare` makes the loss;
        None if there is no such row. No row's tensors depend on other rows."""
        raise NotImplementedError

    def compare(self, vectors: Mapping[str, Tensor]) -> Loss:
        """Of one that is `cached`: the loss of the rows of a whole batch, from what `embed` gave of them."""
        raise NotImplementedError

    def compared(self, vectors: Mapping[str, Tensor]) -> Loss:
        """`compare`, of the rows of all ranks; each has its share of the loss."""
        size = ranks.data().size
        with ranks.whole_batch():
            loss = self.compare(vectors)
        return loss.share(size)

    def reads(self, batch: Batch) -> Batch:
        """The streams that it passes through the model, if it `shares`."""
        return batch

    def judge(self, done: Mapping[str, Hidden], batch: Batch) -> Loss:
        """The loss of a batch, given the trunks' representations of what it `reads`."""
        raise NotImplementedError

    def targets(self, batch: Batch, drawn: Mapping[str, Tensor]) -> Tensor | None:
        """The count of its loss on a batch, where that is known before the model is asked; else None."""
        return None

    def nothing(self) -> Loss:
        """The loss where there is no target: 0 of 0; going backward from it touches no parameter."""
        zero = torch.zeros((), device=next(self.model.parameters()).device, requires_grad=True)
        return Loss(zero, zero.detach(), {}, {})

    def initial(self, batch: Batch) -> float | None:
        """What theory expects of the loss on a batch before training (the log of how many ids there are), or None."""
        return None

    def costs(self, lengths: Mapping[str, int], masked: Iterable[str] = ()) -> list[Cost]:
        """What one row of a batch takes in training, part by part, by formula (see sevenfold.assembly.cost).

        lengths   stream → tokens
        masked    streams whose rows have masks of their own: padding, several documents in a window
        """
        return [*model_costs(self.model, lengths, masked), *self.own_costs()]

    def own_costs(self) -> list[Cost]:
        """Its parameters outside of the model."""
        known = {id(p) for p in self.model.parameters()}
        own = [p for p in self.parameters() if id(p) not in known]
        count, learns = sum(p.numel() for p in own), sum(p.numel() for p in own if p.requires_grad)
        return [Cost("objective", str(self.kind), count, 0, learns)] if count else []

    def flops(self, batch: Batch) -> int:
        """FLOPs of one forward pass over the batch, by formula."""
        number = len(next(iter(batch.values())).values)
        return number * sum(cost.flops for cost in self.costs({name: s.values.shape[1] for name, s in batch.items()}))

    def after_step(self, step: int, steps: int) -> None:
        """Called after each optimizer step that is taken, the number of `step` counted from 0, of `steps` in all (teachers,
        queues, clamps). What schedules need later is kept in buffers."""

    def product(self) -> None:
        """Called once, when training ends, before the last look at held-out data: the model becomes what is to be kept (the
        weights of a teacher, which are a mean over many steps). By default it stays what was trained."""

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        """What goes wrong in training, a line each, judged from the terms (and `loss`) of a look at held-out data, or of a
        training step; it is said aloud (of steps, when it lasts), logged and put on top of the report. A codebook or a
        representation that collapses, say."""
        return []

    def exhibits(self, samples: Sequence[dict[str, Any]], seed: int = 0) -> list[Exhibit]:
        """Things to look at, made from a few held-out samples (stream → raw item): drawings, reconstructions."""
        return []

    def likelihoods(self) -> dict[str, str]:
        """Streams of which every token is predicted once, so that their nats are a likelihood: stream → its term."""
        return {}

    def baselines(self, train: Sequence[Batch], held_out: Sequence[Batch]) -> dict[str, dict[str, float]]:
        """What trivial methods reach on the held-out batches: name → {term: value}, terms as in Loss."""
        return {}


def the_trunk(model: ModelConfig, name: str | None, field: str = "trunk") -> str:
    """The trunk that an objective names, or the only one."""
    if name is None:
        if len(model.trunks) > 1:
            raise ConfigError(f"objective.{field}: say which of {list(model.trunks)}")
        return next(iter(model.trunks))
    if name not in model.trunks:
        raise ConfigError(f"objective.{field}: there is no {name!r}{did_you_mean(name, model.trunks)}")
    return name


def the_stream(model: ModelConfig, name: str | None, among: Sequence[str], field: str = "stream") -> str:
    """The stream that an objective names, or the only one of `among`."""
    if name is None:
        if len(among) != 1:
            raise ConfigError(f"objective.{field}: say which of {list(among)}")
        return among[0]
    if name not in among:
        raise ConfigError(f"objective.{field}: {name!r} is not one of {list(among)}{did_you_mean(name, among)}")
    return name


def check_masker(masker: Masker.Config, modality: Modality) -> Masker.Config:
    """The masker, if items of the modality have the axes that it needs."""
    if modality.tokenizer.axes < masker.part.axes:
        raise ConfigError(
            f"objective.masker: {masker.kind} needs tokens with {masker.part.axes} coordinate axes, and those of "
            f"{modality.kind} have {modality.tokenizer.axes}: choose random or span"
        )
    return masker


def has_head(model: ModelConfig, trunk: str, stream: str) -> str | None:
    """The name of the head that gives `stream` from the tokens of `trunk`, if the recipe has one."""
    for name, head in model.heads.items():
        if head.trunk == trunk and head.stream == stream and head.pool == "none":
            return name
    return None


def rows_with(stream: Stream) -> Tensor:
    """[b] bool: the rows of a batch that have this stream."""
    if stream.valid is None:
        return torch.ones(len(stream.values), dtype=torch.bool, device=stream.values.device)
    return stream.valid.any(1)


def unigram(train: Sequence[Tensor], held_out: Sequence[Tensor], size: int) -> float:
    """Nats per token of the best guess that does not look: train frequencies (one added to each) on held-out ids."""
    counts = torch.ones(size, dtype=torch.float64)
    for ids in train:
        counts += torch.bincount(ids.flatten(), minlength=size)[:size]
    logs = (counts / counts.sum()).log()
    found = torch.cat([ids.flatten() for ids in held_out])
    return -float(logs[found].mean())
