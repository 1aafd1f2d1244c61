"""What self-distillation with prototypes has in common: losses, the teacher, the masked looks of a student.

    class   = mean over pairs of looks (u of the teacher, v != u of the student) of H(P(u), s(v))
    patch   = mean over pictures of (1/|M|) sum_{i in M} H(P(u_i), s(u~_i)), u~ the same look with the tokens of M hidden

Heads and H are in _prototypes. Caron 2021 (DINO), arXiv:2104.14294; Zhou 2021 (iBOT), arXiv:2111.07832 eq. 2-3.
The teacher's trunk is the better product: when training ends, the model takes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sevenfold.assembly.cost import Cost
from sevenfold.assembly.cost.model import model_costs
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.assembly.pieces import embedded
from sevenfold.core import part, ranks
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Normal, Rule
from sevenfold.core.modules import ModuleDict
from sevenfold.core.types import Batch, Hidden, Loss, Stream, wide
from sevenfold.objective import check_masker, rows_with
from sevenfold.objective._looks import Looking, again
from sevenfold.objective._prototypes import Head, HeadSettings, against
from sevenfold.objective._teacher import Clock, Teacher, cosine, linear, through, trunks_for
from sevenfold.objective._watch import collapsed, flat_or_stuck, health, prototypes
from sevenfold.objective.balance import Balance
from sevenfold.objective.masker import Masker, all_eligible


class SelfDistillation(Looking):
    """Base of ibot and dinov2."""

    class Config(Looking.Config):
        pool: str = "class"
        """How the trunk's tokens become one vector: class, mean or last."""
        head: HeadSettings = HeadSettings()
        """Perceptron and prototypes."""
        temperature: float = Field(0.1, gt=0)
        """t of the student."""
        teacher_temperature: tuple[float, float] = (0.04, 0.04)
        """That of the teacher: at the beginning, and from `warm` on (0.07 in published models)."""
        warm: float = Field(0.3, ge=0, le=1)
        """The share of the run over which the teacher's temperature moves."""
        momentum: float = Field(0.99, ge=0, le=1)
        """The share of itself that the teacher keeps each step, at the beginning; along a cosine it becomes 1."""
        balance: Balance.Config = part.default("centre")
        """What keeps prototypes in use: centre or sinkhorn."""
        masker: Masker.Config = part.default("random")
        """Which tokens are hidden from the student: block for pictures, random for sets …"""
        ratio: tuple[float, float] = (0.1, 0.5)
        """The least and the most of a look that is hidden."""
        masked: float = Field(0.5, ge=0, le=1)
        """The share of looks in which tokens are hidden; the others are whole."""
        patch: float = Field(1.0, ge=0)
        """The weight of hidden tokens beside that of looks."""

    watched = ("teacher_entropy", "spread")

    @classmethod
    def example(cls) -> dict[str, Any]:
        data = super().example()
        data["trunks"]["enc"]["class_token"] = True
        data["objective"] |= {"head": {"prototypes": 16, "hidden": 32, "width": 16}, "balance": "sinkhorn"}
        return data

    @classmethod
    def heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, Any]:
        if not 0 <= config.ratio[0] <= config.ratio[1] < 1:
            raise ConfigError(f"objective.ratio: {list(config.ratio)} is no range in 0…1, from the least to the most")
        if min(config.teacher_temperature) <= 0:
            raise ConfigError("objective.teacher_temperature: both must be above 0")
        return super().heads(config, model, sizes)

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        settings, width = config.head, int(model.config.trunks[self.trunk].width)
        if settings.shared and width != self.width:
            raise ConfigError("objective.head.shared: class and patch tokens have another width: pool by class or mean")
        self.masker: Masker = check_masker(config.masker, model.modalities[self.stream]).build()
        self.behind: ModuleDict[Head] = ModuleDict({"class": Head(self.width, settings)})
        self.balances: ModuleDict[Balance] = ModuleDict({"class": config.balance.build(settings.prototypes)})
        self.mask_token: nn.Parameter | None = None
        if config.masked:
            self.mask_token = nn.Parameter(torch.empty(width))
            self.balances["patch"] = config.balance.build(settings.prototypes)
            if not settings.shared:
                self.behind["patch"] = Head(width, settings)
            self.begin()
        self.clock = Clock()
        self.teacher = Teacher(**self._followed()).by_batch()

    def rules(self) -> dict[str, Rule]:
        return {} if self.mask_token is None else {"mask_token": Normal(0.02)}

    def _followed(self) -> dict[str, nn.Module]:
        return {"trunks": trunks_for(self.model, self.trunk), "behind": self.behind}

    def settle(self) -> None:
        self.teacher.settle(**self._followed())

    def after_step(self, step: int, steps: int) -> None:
        self.clock.tick(step, steps)
        self.teacher.follow(cosine(self.config.momentum, 1.0, self.clock.share), **self._followed())
        for balance in self.balances.values():
            balance.after_step()

    @torch.no_grad()
    def product(self) -> None:
        """The model takes the teacher's weights."""
        for name, module in self._followed().items():
            module.load_state_dict(self.teacher[name].state_dict())

    # Looks
    def globals(self) -> list[str]:
        """The looks that the teacher sees, and of which the student's have hidden tokens."""
        return [f"{self.stream}.1", f"{self.stream}.2"]

    def draw(self, batch: Batch) -> dict[str, Tensor]:
        """What is hidden in each global look: [b n] bool."""
        for balance in self.balances.values():
            balance.forget()
        if self.mask_token is None:
            return {}
        return {name: self._chosen(batch[name]) for name in self.globals() if name in batch}

    def _chosen(self, stream: Stream) -> Tensor:
        """Of a share of the rows, ratios evenly spread over the range, each row's by chance."""
        eligible, there = all_eligible(stream.coords, stream.valid), rows_with(stream)
        rank = torch.rand(len(there), device=there.device).masked_fill(~there, 2).argsort().argsort()
        wanted = (eligible.sum(1) * self._ratios(int(there.sum()), len(there)).to(rank.device)[rank]).round().long()
        return self.masker.choose(stream.coords, eligible, wanted)

    def _ratios(self, rows: int, most: int) -> Tensor:
        """[most] float64: what is hidden of the first, second … of `rows` rows in a random order."""
        low, high = self.config.ratio
        count = round(self.config.masked * rows)
        places = (torch.arange(most, dtype=torch.float64) + 0.5) / max(count, 1)
        return torch.where(torch.arange(most) < count, low + (high - low) * places, 0.0)

    def student(self, stream: Stream, hidden: Tensor | None) -> Hidden:
        """A look through the student's trunk, the hidden tokens [b n] in the guise of the mask token."""
        if hidden is None or self.mask_token is None:
            return through(trunks_for(self.model, self.trunk), {self.stream: stream}, self.trunk)
        trunk = self.model.trunks[self.trunk]
        x = embedded(trunk.embeds[self.stream], stream.values, stream.valid, stream.segments)
        x = torch.where(hidden[..., None], self.mask_token.to(x.dtype), x)
        given = Hidden(x, stream.coords, stream.valid, stream.segments, frames=stream.frames)
        return trunk.mix(trunk.join([trunk.embed(self.stream, given, project=False)]))

    # The loss
    def forward(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> Loss:
        drawn = self.draw(batch) if drawn is None else drawn
        there = self.there(batch)
        if not ranks.data().all(there is not None) or there is None:
            return self.nothing()
        looks = {name: batch[name].rows(there) for name in self.names()}
        hides = {name: drawn[name][there] for name in self.globals() if name in drawn}
        seen = {name: self.student(stream, hides.get(name)) for name, stream in looks.items()}
        with torch.no_grad():
            known = {name: self.hidden(looks, name, self.teacher["trunks"]) for name in self.globals()}
        with torch.autocast(there.device.type, enabled=False):
            return self._loss(seen, known, hides)

    def _loss(self, seen: Mapping[str, Hidden], known: Mapping[str, Hidden], hides: Mapping[str, Tensor]) -> Loss:
        config, pools = self.config, {name: self.vector(hidden) for name, hidden in seen.items()}
        points = {name: self.behind["class"].points(pooled) for name, pooled in pools.items()}
        scores = {name: self.behind["class"].scores(point) for name, point in points.items()}
        with torch.no_grad():
            told = torch.cat([self.teacher["behind"]["class"](self.vector(hidden)) for hidden in known.values()])
            p = self.balances["class"](told, self.sharpness)
        wanted = dict(zip(known, p.chunk(len(known))))
        parts = self.pairs(wanted, scores)
        patch = self._patches(seen, known, hides)
        if patch is not None:
            parts["patch"] = (config.patch, patch[0])
        parts |= self.more(pools)
        b = torch.tensor(float(len(p) // len(known)), device=p.device)
        total = torch.stack([weight * value for weight, value in parts.values()]).sum() * b
        terms = {name: (value.detach() * b, b) for name, (_, value) in parts.items()}
        terms |= prototypes(p)
        if patch is not None:
            terms |= prototypes(patch[1], "patch_")
        first = self.globals()[0]
        return Loss(total, b, {**terms, **health(points[first])}, {"z": pools[first].detach()})

    def pairs(self, wanted: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> dict[str, tuple[float, Tensor]]:
        """Name → (weight, mean) of what the student's looks say of each other one of the teacher's."""
        t = self.config.temperature
        found = [against(p, s, t).mean() for u, p in wanted.items() for v, s in scores.items() if u != v]
        return {"class": (1.0, torch.stack(found).mean())}

    def more(self, pools: Mapping[str, Tensor]) -> dict[str, tuple[float, Tensor]]:
        """Name → (weight, mean) of further parts, by the student's pooled looks."""
        return {}

    def _patches(
        self, seen: Mapping[str, Hidden], known: Mapping[str, Hidden], hides: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor] | None:
        """(the mean over looks with hidden tokens, the teacher's probabilities of each hidden one); None without any."""
        others = ranks.data()
        if not others.any(any(bool(hidden.any()) for hidden in hides.values())):
            return None
        name = "patch" if "patch" in self.behind else "class"
        mask = torch.cat([hides[look].flatten() for look in known])
        weight = torch.cat([(h / h.sum(1, keepdim=True).clamp(min=1)).flatten() for h in hides.values()])[mask]
        looks = sum(len(h) for h in hides.values())
        counts = torch.stack([h.any(1).sum() for h in hides.values()]).sum()[None]
        rows, every = others.all_reduce_no_grad(torch.cat([counts, counts.new_tensor([looks])]))
        ours = torch.cat([wide(seen[look].of(self.stream).x).flatten(0, 1) for look in known])[mask]
        with torch.no_grad():
            theirs = torch.cat([wide(hidden.of(self.stream).x).flatten(0, 1) for hidden in known.values()])[mask]
            p = self.balances["patch"](self.teacher["behind"][name](theirs), self.sharpness)
        each = against(p, self.behind[name](ours), self.config.temperature)
        return (each * weight).sum() / (rows * looks / every), p

    @property
    def sharpness(self) -> float:
        """The teacher's temperature now."""
        start, end = self.config.teacher_temperature
        return linear(start, end, self.clock.share / self.config.warm) if self.config.warm else end

    # What it costs
    def costs(self, lengths: Mapping[str, int], masked: Iterable[str] = ()) -> list[Cost]:
        found = super().costs(lengths, masked)
        for place, tokens in enumerate(self.looked(lengths)[:2]):
            costs = model_costs(self.model, {self.stream: tokens}, masked)
            found += [
                again(cost, place)._replace(place=f"teacher of {cost.place}", backward=0, kept=0) for cost in costs
            ]
        return found

    def own_costs(self) -> list[Cost]:
        looks = len(self.names()) + 2
        return [cost._replace(flops=looks * self.behind["class"].flops()) for cost in super().own_costs()]

    def flops(self, batch: Batch) -> int:
        """With what the hidden tokens take: how many there are is known, as far as rows are equally long."""
        found = super().flops(batch)
        if not found or self.mask_token is None:
            return found
        head = self.behind["patch" if "patch" in self.behind else "class"]
        for name in self.globals():
            tokens = all_eligible(batch[name].coords, batch[name].valid).sum(1)
            real = tokens[tokens > 0].double()
            hidden = (real * self._ratios(len(real), len(real)).to(real.device)).round().sum()
            found += 2 * head.flops(int(hidden))
        return found

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        return [*collapsed(terms), *flat_or_stuck(terms)]

    def baselines(self, train: Sequence[Batch], held_out: Sequence[Batch]) -> dict[str, dict[str, float]]:
        nats = torch.tensor(float(self.config.head.prototypes)).log().item()
        return {"a student that says nothing": {"class": nats}}
