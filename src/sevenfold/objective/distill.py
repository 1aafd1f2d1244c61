"""A student learns to say what a trained, frozen model says of the same items.

    L = cosine · (1 - cos(W z_s, z_t))  +  smooth_l1 · rho(W z_s - LN(z_t))  +  logits · T^2 KL(softmax(l_t / T) | softmax(l_s / T))

Hinton 2015, arXiv:1503.02531 section 2 (logits, T); Romero 2014 (FitNets), arXiv:1412.6550 eq. 3, and Sanh 2019 (DistilBERT),
arXiv:1910.01108 (representations). z are pooled representations, l what a head of both says, of one token or of each. W and
the teacher are thrown away after training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from sevenfold.assembly.cost import Cost
from sevenfold.assembly.cost.model import model_costs
from sevenfold.assembly.head import HeadConfig
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.assembly.pool import WIDER, pool
from sevenfold.core import part
from sevenfold.core.errors import ConfigError, did_you_mean
from sevenfold.core.types import Batch, Hidden, Loss, wide
from sevenfold.modality import Modality
from sevenfold.objective import Look, Objective, rows_with, the_stream, the_trunk
from sevenfold.objective._example import of_pictures
from sevenfold.objective._looks import again
from sevenfold.objective._teacher import Teacher


class Distill(Objective):
    class Config(Objective.Config):
        teacher: str | None = None
        """A run folder, a published one, or the id of one; it has to be there whenever the run goes on, for its weights are not
        saved with it. By default what the run begins from, as it was (learning without forgetting), which is saved."""
        trunk: str | None = None
        """The student's trunk; by default the last that reads a stream."""
        teacher_trunk: str | None = None
        """The teacher's; by default the last that reads a stream."""
        stream: str | None = None
        """The stream that both read; by default the only one that the student's trunk reads."""
        pool: str = "mean"
        """How the student's tokens become one vector: mean, class or last."""
        teacher_pool: str | None = None
        """How the teacher's do; by default as the student's."""
        cosine: float = Field(1.0, ge=0)
        """The weight of the direction of the representation."""
        smooth_l1: float = Field(0.0, ge=0)
        """The weight of all of it, standardised."""
        logits: float = Field(0.0, ge=0)
        """The weight of what heads say."""
        head: str | None = None
        """The head, in both models; by default the only one that both have."""
        temperature: float = Field(2.0, gt=0)
        """T."""

    watched = ("cosine",)
    whole_items = True

    @classmethod
    def models(cls, config: Any) -> dict[str, str]:
        return {} if config.teacher is None else {"teacher": config.teacher}

    @classmethod
    def example(cls) -> dict[str, Any]:
        return of_pictures({"kind": cls.kind})

    @classmethod
    def heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, HeadConfig]:
        if not (config.cosine or config.smooth_l1 or config.logits):
            raise ConfigError("objective: distill has no loss: give cosine, smooth_l1 or logits a weight above 0")
        trunk = cls._reading(config.trunk, model, "trunk")
        the_stream(model, config.stream, [name for name in model.trunks[trunk].inputs if name in model.streams])
        if config.logits and not model.heads:
            raise ConfigError(
                "objective.logits: the student has no head: write the teacher's into the recipe (heads: {label: {trunk: "
                "enc, outputs: 10, pool: mean}})"
            )
        return {}

    @staticmethod
    def _reading(name: str | None, model: ModelConfig, field: str) -> str:
        """The trunk of that name, or the last that reads a stream."""
        reading = [other for other, trunk in model.trunks.items() if any(s in model.streams for s in trunk.inputs)]
        return the_trunk(model, name or reading[-1], field)

    def __init__(self, config: Any, model: Model, models: Mapping[str, Model] | None = None):
        super().__init__(config, model)
        self.trunk = self._reading(config.trunk, model.config, "trunk")
        inputs = model.config.trunks[self.trunk].inputs
        self.stream = the_stream(model.config, config.stream, [name for name in inputs if name in model.config.streams])
        self.own = Teacher(model=model) if config.teacher is None else None
        self.named = tuple((models or {}).values())  # in no list of modules: not saved, not trained
        teacher = self.teacher
        self.teacher_trunk = self._reading(config.teacher_trunk, teacher.config, "teacher_trunk")
        given = teacher.config.trunks[self.teacher_trunk].inputs
        self.teacher_stream = self.stream if self.stream in given else the_stream(teacher.config, None, given)
        theirs, ours = teacher.modalities[self.teacher_stream], model.modalities[self.stream]
        if type(theirs) is not type(ours):
            raise ConfigError(f"objective.teacher: reads {theirs.kind}, and stream {self.stream!r} is {ours.kind}")
        self.same = same_tokens(ours, theirs)
        self.head = self._head(config, model, teacher) if config.logits else None
        self.teacher_pool = config.teacher_pool or config.pool
        self.projection: Any = None
        if config.cosine or config.smooth_l1:
            width = model.config.trunks[self.trunk].width * WIDER.get(config.pool, 1)
            wanted = teacher.config.trunks[self.teacher_trunk].width * WIDER.get(self.teacher_pool, 1)
            self.projection = part.find("projection", "linear").Config(bias=True, std=width**-0.5).build(width, wanted)
        self.print: Tensor
        """[32] the hash of a named teacher's weights."""
        self.register_buffer("print", torch.zeros(32, dtype=torch.uint8))
        if self.named and not any(value.is_meta for value in teacher.state_dict().values()):
            self.print = fingerprint(teacher)
        self._first = self.print.clone()

    def _head(self, config: Any, model: Model, teacher: Model) -> str:
        both = [name for name in model.heads if name in teacher.heads]
        if config.head is None and len(both) != 1:
            raise ConfigError(f"objective.head: say which of the heads that student and teacher have: {both}")
        name = config.head or both[0]
        if name not in both:
            raise ConfigError(f"objective.head: student and teacher have no {name!r}{did_you_mean(name, both)}")
        ours, theirs = model.heads[name], teacher.heads[name]
        if ours.outputs != theirs.outputs:
            raise ConfigError(f"heads.{name}: gives {ours.outputs} numbers, and the teacher's {theirs.outputs}")
        if (ours.config.pool == "none") != (theirs.config.pool == "none"):
            raise ConfigError(
                f"heads.{name}.pool: one of student and teacher asks every token, the other the whole item"
            )
        if ours.config.pool == "none" and not self.same:
            raise ConfigError(
                f"objective.logits: of every token only where both models have one tokenizer: take the teacher's for streams."
                f"{self.stream} (start: {config.teacher})"
            )
        return name

    @property
    def teacher(self) -> Model:
        """The frozen model."""
        found: Model = self.named[0] if self.own is None else self.own["model"]
        return found

    def settle(self) -> None:
        if self.own is not None:
            self.own.settle(model=self.model)

    def looks(self) -> dict[str, Look]:
        """Where the teacher has another tokenizer, the item in its tokens too."""
        if self.same:
            return {}
        return {
            self.stream: Look(self.stream),
            self._told: Look(self.stream, (), self.teacher.modalities[self.teacher_stream]),
        }

    @property
    def _told(self) -> str:
        """The name of the stream in a batch that the teacher reads."""
        return self.stream if self.same else f"{self.stream}.teacher"

    def _through(self, model: Model, trunk: str, batch: Batch) -> dict[str, Hidden]:
        done = model.earlier(batch, trunk)
        return {**done, trunk: model.trunks[trunk](batch, done)}

    @torch.no_grad()
    def teach(self, batch: Batch) -> dict[str, Hidden]:
        """What the teacher's trunks give."""
        teacher = self.teacher
        if self.named:
            if not torch.equal(self.print.cpu(), self._first.cpu()):
                raise ConfigError(
                    f"objective.teacher: {self.config.teacher} holds other weights than when this run began"
                )
            if teacher.device != self.model.device:
                teacher.to(self.model.device)
            teacher.eval()
        return self._through(teacher, self.teacher_trunk, {self.teacher_stream: batch[self._told]})

    def forward(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> Loss:
        if self.stream not in batch or self._told not in batch:
            return self.nothing()
        there = (rows_with(batch[self.stream]) & rows_with(batch[self._told])).to(torch.get_default_dtype())
        ours = self._through(self.model, self.trunk, {self.stream: batch[self.stream]})
        theirs = self.teach(batch)
        count = there.sum()
        each: dict[str, tuple[float, Tensor]] = {}
        z, config = None, self.config
        if self.projection is not None:
            with torch.autocast(there.device.type, enabled=False):
                z = wide(pool(theirs[self.teacher_trunk], self.teacher_pool))
                said = self.projection(wide(pool(ours[self.trunk], config.pool)))
                each["cosine"] = (config.cosine, 1 - F.cosine_similarity(said, z, dim=-1))
                if config.smooth_l1:
                    apart = F.smooth_l1_loss(said, F.layer_norm(z, z.shape[-1:]), reduction="none").mean(-1)
                    each["smooth_l1"] = (config.smooth_l1, apart)
        if self.head is not None:
            each |= self._said(ours, theirs)
        there = there.to(next(iter(each.values()))[1].dtype)
        sums = {name: (weight, (value * there).sum()) for name, (weight, value) in each.items()}
        total = torch.stack([weight * value for weight, value in sums.values()]).sum()
        terms = {name: (value.detach(), count) for name, (_, value) in sums.items()}
        return Loss(total, count, terms, {} if z is None else {"teacher": z.detach()})

    def _said(self, ours: Mapping[str, Hidden], theirs: Mapping[str, Hidden]) -> dict[str, tuple[float, Tensor]]:
        """KL and agreement of what the heads say, a mean over the tokens of each row."""
        assert self.head is not None
        name, t = self.head, self.config.temperature
        student, valid = self._logits(self.model, name, ours)
        with torch.no_grad():
            teacher, _ = self._logits(self.teacher, name, theirs)
        kl = F.kl_div(
            F.log_softmax(student / t, -1), F.log_softmax(teacher / t, -1), reduction="none", log_target=True
        ).sum(-1)
        agree = (student.argmax(-1) == teacher.argmax(-1)).to(kl.dtype)
        if kl.dim() == 2:
            weight = torch.ones_like(kl) if valid is None else valid.to(kl.dtype)
            kl, agree = ((x * weight).sum(1) / weight.sum(1).clamp(min=1) for x in (kl, agree))
        return {"kl": (self.config.logits, kl * t * t), "agreement": (0.0, agree)}

    @staticmethod
    def _logits(model: Model, name: str, done: Mapping[str, Hidden]) -> tuple[Tensor, Tensor | None]:
        head = model.config.heads[name]
        if head.trunk not in done:
            raise ConfigError(f"heads.{name}: reads trunk {head.trunk!r}, and not that which is distilled")
        hidden = done[head.trunk]
        if head.pool != "none":
            return wide(model.head(name, pool(hidden, head.pool))), None
        piece = hidden.of(head.stream) if head.stream in (hidden.spans or {}) else hidden
        return wide(model.head(name, piece.x)), piece.valid

    # What it costs
    def costs(self, lengths: Mapping[str, int], masked: Iterable[str] = ()) -> list[Cost]:
        tokens = {self.teacher_stream: lengths.get(self._told, lengths.get(self.stream, 0))}
        until = list(self.teacher.trunks).index(self.teacher_trunk)
        read = [f"{name}." for name in list(self.teacher.trunks)[: until + 1]] + [f"heads.{self.head}"]
        theirs = [cost for cost in model_costs(self.teacher, tokens, masked) if cost.place.startswith(tuple(read))]
        found = model_costs(self.model, {self.stream: lengths.get(self.stream, 0)}, masked)
        ours = [cost for cost in found if not cost.place.startswith("heads.") or cost.place == f"heads.{self.head}"]
        told = [again(cost, 0)._replace(place=f"teacher of {cost.place}", backward=0, kept=0) for cost in theirs]
        return [*ours, *told, *self.own_costs()]

    def own_costs(self) -> list[Cost]:
        flops = 0 if self.projection is None else self.projection.flops(1)
        return [cost._replace(flops=flops) for cost in super().own_costs()]


def same_tokens(one: Modality, other: Modality) -> bool:
    """Whether two modalities make the same tokens of an item, as far as their settings and some examples tell."""
    asked = ("tokenizer", "length", "ends", "closed", "begin", "resize", "fill")
    if any(getattr(one.config, name, None) != getattr(other.config, name, None) for name in asked):
        return False
    for raw in list(one.example())[:8]:
        try:
            made = [modality.tokens(raw) for modality in (one, other)]
        except (ValueError, ConfigError):
            continue
        if made[0].values.shape != made[1].values.shape or (made[0].values != made[1].values).any():
            return False
    return True


def fingerprint(model: Model) -> Tensor:
    """[32] uint8: SHA-256 of a model's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
