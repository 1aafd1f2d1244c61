"""Joint-embedding prediction: from a part of an item, the representation of other parts of it is predicted.

    L = sum_{blocks T_j} sum_{i in T_j} mean_d rho(p_id - LN(t_i)_d) / sum_j |T_j|,   rho(e) = e^2 / 2 for |e| < 1, |e| - 1/2 beyond

p_i is what a light predictor says at the place of i, given the encoder's tokens of the context; t_i is what a slow teacher, which
sees the whole item, says there; LN has no weights. Assran 2023 (I-JEPA), arXiv:2301.08243 section 3, with the rho and LN of its
code; Saito 2024 (Point-JEPA), arXiv:2404.16432. The context never holds a token of a target. All that is asked of an item is where
its tokens stand, so pictures, texts, points and series are served alike (`masker`); where places say nothing, by `masker: random`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.assembly.cost import Cost
from sevenfold.assembly.cost.model import model_costs
from sevenfold.assembly.cost.tokens import trunk_tokens
from sevenfold.assembly.cost.trunk import trunk_costs
from sevenfold.assembly.head import HeadConfig
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Normal, Rule
from sevenfold.core.types import Batch, Hidden, Loss, Stream, take, wide
from sevenfold.objective import Objective, check_masker, the_stream
from sevenfold.objective._example import of_pictures
from sevenfold.objective._looks import again
from sevenfold.objective._teacher import Clock, Teacher, linear, through, trunks_for
from sevenfold.objective._two_trunks import check_dropping, streams_of, two_trunks
from sevenfold.objective._watch import LARGEST, rank
from sevenfold.objective.masker import Masker, all_eligible


class IJEPA(Objective):
    class Config(Objective.Config):
        encoder: str | None = None
        """The trunk that sees the context; by default the first."""
        predictor: str | None = None
        """The trunk that reads the encoder and predicts; by default the last."""
        stream: str | None = None
        """The stream; by default the only one that the encoder reads."""
        targets: int = Field(4, ge=1, le=64)
        """How many blocks of each item are predicted, each on its own."""
        size: float = Field(0.15, gt=0, lt=1)
        """The share of an item's tokens in a target."""
        context: float = Field(0.4, gt=0, lt=1)
        """The share that the encoder sees; fewer where targets that do not overlap would leave fewer."""
        masker: Masker.Config = part.default("block")
        """What a block is: tokens that stand near each other, a run, any tokens (`random`) …"""
        momentum: float = Field(0.996, ge=0, le=1)
        """The share of itself that the teacher keeps each step, at the beginning; in a straight line it becomes 1."""

    watched = ("token_spread",)
    whole_items = True

    @classmethod
    def example(cls) -> dict[str, Any]:
        return of_pictures({"kind": cls.kind, "momentum": 0.98}, reader="pred")

    @classmethod
    def heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, HeadConfig]:
        encoder, predictor = two_trunks(config, model, "encoder", "predictor")
        check_dropping("ijepa", model, encoder, predictor)
        if len(model.trunks[encoder].inputs) != 1:
            raise ConfigError(f"objective: ijepa needs a trunk that reads one stream, and {encoder!r} reads more")
        the_stream(model, config.stream, streams_of(model, encoder))
        return {}

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.encoder, self.predictor = two_trunks(config, model.config, "encoder", "predictor")
        self.stream = the_stream(model.config, config.stream, model.config.trunks[self.encoder].inputs)
        self.masker: Masker = check_masker(config.masker, model.modalities[self.stream]).build()
        narrow, width = (model.config.trunks[name].width for name in (self.predictor, self.encoder))
        self.mask_token = nn.Parameter(torch.empty(narrow))
        self.out = part.find("projection", "linear").Config(bias=True).build(narrow, width)
        self.begin()
        self.clock = Clock()
        self.teacher = Teacher(trunks=trunks_for(model, self.encoder))

    def rules(self) -> dict[str, Rule]:
        return {"mask_token": Normal(0.02)}

    def settle(self) -> None:
        self.teacher.settle(trunks=trunks_for(self.model, self.encoder))

    def after_step(self, step: int, steps: int) -> None:
        self.clock.tick(step, steps)
        momentum = linear(self.config.momentum, 1.0, self.clock.share)
        self.teacher.follow(momentum, trunks=trunks_for(self.model, self.encoder))

    @torch.no_grad()
    def product(self) -> None:
        """The model takes the teacher's weights."""
        trunks_for(self.model, self.encoder).load_state_dict(self.teacher["trunks"].state_dict())

    # What is seen and what is asked
    def sizes(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows of so many tokens: (those of a target, those of the context). One token makes no target."""
        target = torch.minimum((tokens.double() * self.config.size).round().clamp(min=1).long(), tokens - 1).clamp(
            min=0
        )
        most = (tokens - self.config.targets * target).clamp(min=1)
        context = torch.minimum((tokens.double() * self.config.context).round().clamp(min=1).long(), most)
        return target, torch.minimum(context, tokens)

    def draw(self, batch: Batch) -> dict[str, Tensor]:
        """Which tokens are in the targets, [b j n] bool, and in the context, [b n] bool."""
        if self.stream not in batch:
            return {}
        coords, valid = batch[self.stream].coords, batch[self.stream].valid
        eligible = all_eligible(coords, valid)
        wanted, seen = self.sizes(eligible.sum(1))
        first = torch.rand(eligible.shape, device=coords.device).masked_fill(~eligible, -1).argmax(1, keepdim=True)
        free = eligible.scatter(1, first, False)  # one token is left to the context, whatever the targets are
        targets = [self.masker.choose(coords, free, wanted) for _ in range(self.config.targets)]
        context = self.masker.choose(coords, eligible & ~torch.stack(targets).any(0), seen)
        return {"targets": torch.stack(targets, 1), "context": context}

    def predict(self, stream: Stream, context: Tensor, targets: Tensor, seen: Tensor, asked: Tensor) -> Tensor:
        """What the predictor says of the targets, [b j k d]. `context` [b m] and `targets` [b j k] are places of tokens; `seen`
        and `asked`, of the same shapes, are False where a shorter row has fewer."""
        encoder, predictor = self.model.trunks[self.encoder], self.model.trunks[self.predictor]
        b, blocks, k = targets.shape
        latent = encoder({self.stream: stream.take(context)._replace(valid=_some(seen))})
        known = predictor.embed(self.encoder, latent).each(lambda one: one.repeat_interleave(blocks, 0))
        coords = take(stream.coords, targets.flatten(1)).reshape(b * blocks, k, -1)
        x = self.mask_token.to(known.x.dtype).expand(b * blocks, k, -1)
        placed = predictor.embed(self.encoder, Hidden(x, coords, _some(asked.flatten(0, 1))), project=False)
        done = predictor.mix(predictor.join([known, placed._replace(spans={"asked": (0, k)})]))
        return self.out(done.of("asked").x).unflatten(0, (b, blocks))

    def teach(self, stream: Stream) -> Tensor:
        """What is to be predicted of every token, [b n d]: the teacher's, each standardised."""
        with torch.no_grad():
            hidden = through(self.teacher["trunks"], {self.stream: stream}, self.encoder)
            return standardised(hidden.of(self.stream).x)

    def forward(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> Loss:
        if self.stream not in batch:
            return self.nothing()
        drawn, stream = self.draw(batch) if drawn is None else drawn, batch[self.stream]
        n = torch.tensor(stream.values.shape[1])
        size, seen = (int(number) for number in self.sizes(n))
        if size == 0:
            raise ConfigError("objective: ijepa needs items of at least two tokens: choose a smaller patch")
        targets, context = (_places(drawn[name], number) for name, number in (("targets", size), ("context", seen)))
        asked, there = drawn["targets"].gather(2, targets), drawn["context"].gather(1, context)
        said = self.predict(stream, context, targets, there, asked)
        wanted = self.teach(stream)
        goal = take(wanted, targets.flatten(1)).unflatten(1, targets.shape[1:])
        each = F.smooth_l1_loss(wide(said), goal, reduction="none").mean(-1)
        total, count = (each * asked).sum(), asked.sum().to(each.dtype)
        terms = {"smooth_l1": (total.detach(), count), **_alive(wanted, stream.valid)}
        return Loss(total, count, terms, {"said": said.detach(), "wanted": goal.detach()})

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        flat, low = terms.get("token_spread"), terms.get("rank")
        if flat is not None and flat < 0.1:
            return [
                f"the teacher's tokens say where they stand and not what is there: their spread over samples is {flat:.3f} (of 1)"
            ]
        if low is not None and low < 1.5:
            return [f"the teacher's tokens have collapsed to a line: their effective rank is {low:.2f}"]
        return []

    def baselines(self, train: Any, held_out: Any) -> dict[str, dict[str, float]]:
        """Targets have a variance of 1: what saying 0 everywhere gives, for normal ones."""
        return {"zero (of normal targets)": {"smooth_l1": 0.3646}}

    # What it costs
    def costs(self, lengths: Mapping[str, int], masked: Iterable[str] = ()) -> list[Cost]:
        n = lengths[self.stream]
        size, seen = (int(number) for number in self.sizes(torch.tensor(n)))
        encoder, predictor = self.model.trunks[self.encoder], self.model.trunks[self.predictor]
        known = seen + trunk_tokens(encoder, {})
        found = model_costs(self.model, {self.stream: seen}, masked)
        bridge = f"{self.predictor}.embeds.{self.encoder}"
        costs = [cost for cost in found if not cost.place.startswith((f"{self.predictor}.", "heads."))]
        costs += [cost for cost in found if cost.place == bridge]
        full = model_costs(self.model, {self.stream: n}, masked)
        whole = [cost for cost in full if cost.place.startswith(f"{self.encoder}.")]
        costs += [again(cost, 0)._replace(place=f"teacher of {cost.place}", backward=0, kept=0) for cost in whole]
        once = trunk_costs(
            predictor, self.predictor, {self.encoder: known + size}, 0, self.stream in masked, {self.encoder: True}
        )
        for block in range(self.config.targets):
            inside = [cost for cost in once if cost.place != bridge]
            costs += inside if block == 0 else [again(cost, block) for cost in inside]
        asked = 2 * self.config.targets * size * self.out.weight.numel()
        return [*costs, *(cost._replace(flops=asked) for cost in self.own_costs())]


def standardised(x: Tensor) -> Tensor:
    """x [… d] with mean 0 and variance 1 over its channels, in float32 at least."""
    x = wide(x)
    return F.layer_norm(x, x.shape[-1:])


def _places(chosen: Tensor, number: int) -> Tensor:
    """Where [… n] is True, in order, then some places where it is not: [… number]."""
    return (~chosen).byte().argsort(dim=-1, stable=True)[..., :number]


def _some(there: Tensor) -> Tensor | None:
    return None if bool(there.all()) else there


@torch.no_grad()
def _alive(wanted: Tensor, valid: Tensor | None) -> dict[str, tuple[Tensor, Tensor]]:
    """Terms of the targets [b n d]: how far they are apart over samples at one place (0: the place says it all), and in how
    many directions."""
    there = torch.ones(wanted.shape[:2], device=wanted.device) if valid is None else valid.to(wanted.dtype)
    number = there.sum(0)[:, None]
    mean = (wanted * there[..., None]).sum(0) / number.clamp(min=1)
    off = (wanted - mean)[(there > 0) & (number[:, 0] > 1)]
    if not len(off):
        return {}
    count = torch.tensor(float(len(off)), device=wanted.device)
    found = {"token_spread": (off.double().square().mean().sqrt() * count, count)}
    if wanted.shape[-1] <= LARGEST:
        found["rank"] = (rank(off) * count, count)
    return found
