"""Several objectives on one model: what `multi_task` and `semi_supervised` have in common.

    L = sum_k f_k(L_k),   L_k the mean loss of part k over its own targets of the batch

Heads, looks, random choices and terms are those of the parts; a part's terms have its name in front (`label.nats`). Parts whose
loss is a function of the trunks' representations share one pass through them. The count of the whole is the number of rows: where a
part says how many targets a batch has before it is split, splitting it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sevenfold.assembly.cost import Cost
from sevenfold.assembly.head import HeadConfig
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core.errors import ConfigError
from sevenfold.core.modules import ModuleDict
from sevenfold.core.types import Batch, Hidden, Loss
from sevenfold.objective import Exhibit, Look, Objective, rows_with


class Parts(Objective):
    """Base of the objectives that are made of others."""

    whole_items = True
    where: ClassVar[str] = ""
    """The field of the config that holds the parts, for messages; empty: each is a field of its own."""

    @classmethod
    def of(cls, config: Any, model: ModelConfig) -> dict[str, Objective.Config]:
        """Name → part."""
        raise NotImplementedError

    @classmethod
    def _place(cls, name: str) -> str:
        return ".".join(piece for piece in ("objective", cls.where, name) if piece)

    @classmethod
    def _heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, dict[str, HeadConfig]]:
        """Part → the heads that it needs, besides those of the recipe."""
        found = {}
        for name, part in cls.of(config, model).items():
            try:
                found[name] = part.part.heads(part, model, sizes)
            except ConfigError as error:
                raise ConfigError(str(error).replace("objective", cls._place(name), 1)) from None
        return found

    @classmethod
    def heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, HeadConfig]:
        found: dict[str, HeadConfig] = {}
        for part, heads in cls._heads(config, model, sizes).items():
            for name, head in heads.items():
                if found.get(name, head) != head:
                    raise ConfigError(f"{cls._place(part)}: another part has a head {name!r} that is not the same")
                found[name] = head
        return found

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.parts: ModuleDict[Any] = ModuleDict()
        needed = self._heads(config, model.config.replace(heads={}), {})
        self.used = {name: set(heads) for name, heads in needed.items()}
        """Part → its heads."""
        for name, part in self.of(config, model.config).items():
            made = part.build(model)
            del made._modules["model"]  # it is the model of the whole, and stands there only
            made.__dict__["model"] = model
            self.parts[name] = made
        self.decomposable = all(
            p.decomposable and type(p).targets is not Objective.targets for p in self.parts.values()
        )
        self.squared = all(part.squared for part in self.parts.values())
        self.names = self._named()

    def _named(self) -> dict[str, dict[str, str]]:
        """Part → its name of each look → the look's name in a batch: the same, unless another part's look has it. A stream that
        some part looks at is given to the others as it is."""
        asked = {name: dict(part.looks()) for name, part in self.parts.items()}
        looked = {look.stream for looks in asked.values() for look in looks.values()}
        self.looked: dict[str, Look] = {}
        named: dict[str, dict[str, str]] = {}
        for part, looks in asked.items():
            own = {look.stream for look in looks.values()}
            every = {**{stream: Look(stream) for stream in sorted(looked - own)}, **looks}
            named[part] = {}
            for name, look in every.items():
                free = self.looked.get(name, look) == look
                named[part][name] = name if free else f"{part}.{name}"
                self.looked[named[part][name]] = look
        return named

    def looks(self) -> dict[str, Look]:
        return dict(self.looked)

    def aligned(self) -> dict[str, str]:
        return {stream: of for part in self.parts.values() for stream, of in part.aligned().items()}

    def given(self, part: str, batch: Batch) -> Batch:
        """A batch as one part knows it."""
        looked, names = {look.stream for look in self.looked.values()}, self.names[part]
        plain = {name: s for name, s in batch.items() if name in self.model.config.streams and name not in looked}
        return {**plain, **{own: batch[name] for own, name in names.items() if name in batch}}

    def settle(self) -> None:
        for part in self.parts.values():
            part.settle()

    def after_step(self, step: int, steps: int) -> None:
        for part in self.parts.values():
            part.after_step(step, steps)

    def draw(self, batch: Batch) -> dict[str, Tensor]:
        """What the parts draw, and of each that knows how many targets it has, the rows per target."""
        found: dict[str, Tensor] = {}
        rows = len(next(iter(batch.values())).values) if batch else 0
        for name, part in self.parts.items():
            given = self.given(name, batch)
            own = part.draw(given) if given else {}
            found |= {f"{name}/{key}": value for key, value in own.items()}
            targets = part.targets(given, own) if given else None
            if targets is not None:
                share = here(batch).sum() / targets.double().clamp(min=1e-12) * (targets > 0)
                found[name] = share.to(next(iter(batch.values())).coords.device).expand(rows)
        return found

    def apart(self, batch: Batch, drawn: Mapping[str, Tensor]) -> tuple[dict[str, Loss], dict[str, Tensor]]:
        """The loss of each part on some rows; and, of each that has targets in the batch, the sum over rows of which the mean is
        its own mean loss."""
        losses: dict[str, Loss] = {}
        sums: dict[str, Tensor] = {}
        passed: dict[Any, Mapping[str, Hidden]] = {}
        for name, part in self.parts.items():
            given = self.given(name, batch)
            if not given:
                continue
            own = {key.partition("/")[2]: value for key, value in drawn.items() if key.startswith(f"{name}/")}
            read = part.reads(given) if part.shares else {}
            if not part.shares:
                loss = part.forward(given, own)
            elif not read:
                loss = self.nothing()
            else:
                key = (part.through, *((stream, id(s.values)) for stream, s in read.items()))
                if key not in passed:
                    passed[key] = self.model.earlier(read, None, part.through)
                loss = part.judge(passed[key], given)
            losses[name] = loss
            if name in drawn and bool(drawn[name][0] > 0):
                sums[name] = loss.total * drawn[name][0].to(loss.total.dtype)
            elif name not in drawn and float(loss.count) > 0:
                sums[name] = loss.total * here(batch).sum() / loss.count
        return losses, sums

    def terms(self, losses: Mapping[str, Loss]) -> dict[str, tuple[Tensor, Tensor]]:
        """Those of every part, its name in front, with its loss."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for name, loss in losses.items():
            every = {"loss": (loss.total.detach(), loss.count), **loss.terms}
            found |= {f"{name}.{term}": pair for term, pair in every.items()}
        return found

    def weighed(self, sums: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """The loss, a sum over `rows` rows, from what `apart` gives."""
        raise NotImplementedError

    def forward(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> Loss:
        if not batch:
            return self.nothing()
        losses, sums = self.apart(batch, self.draw(batch) if drawn is None else drawn)
        rows = here(batch).sum().float()
        if not sums or not bool(rows > 0):
            return self.nothing()
        said = {f"{name}.{key}": value for name, loss in losses.items() for key, value in loss.outputs.items()}
        return Loss(self.weighed(sums, rows), rows, self.terms(losses), said)

    # What it costs, how it goes, how it is shown
    def costs(self, lengths: Mapping[str, int], masked: Iterable[str] = ()) -> list[Cost]:
        found: list[Cost] = []
        seen: set[str] = set()
        shared: set[tuple[str, ...]] = set()
        for name, part in self.parts.items():
            known = {own: lengths[g] for own, g in self.names[name].items() if g in lengths}
            inside = part.costs({**lengths, **known}, masked)
            inside = [r for r in inside if not r.place.startswith("heads.") or r.place[6:] in self.used[name]]
            if part.shares:
                if part.through in shared:
                    inside = [r for r in inside if r.place.partition(".")[0] not in self.model.trunks]
                shared.add(part.through)
            found += [r if r.place not in seen else _again(r, name) for r in inside]
            seen |= {r.place for r in inside}
        own = sum(p.numel() for p in self.own_parameters().values())
        return [*found, Cost("objective.weights", str(self.kind), own, 0, own)] if own else found

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        found = []
        for name, part in self.parts.items():
            own = {key.partition(".")[2]: value for key, value in terms.items() if key.startswith(f"{name}.")}
            found += [f"{name}: {line}" for line in part.warnings(own)]
        return found

    def exhibits(self, samples: Sequence[dict[str, Any]], seed: int = 0) -> list[Exhibit]:
        return [
            one._replace(title=f"{name}: {one.title}")
            for name, part in self.parts.items()
            for one in part.exhibits(samples, seed)
        ]

    def likelihoods(self) -> dict[str, str]:
        return {
            stream: f"{name}.{term}" for name, part in self.parts.items() for stream, term in part.likelihoods().items()
        }

    def baselines(self, train: Sequence[Batch], held_out: Sequence[Batch]) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for name, part in self.parts.items():
            batches = [[self.given(name, batch) for batch in some] for some in (train, held_out)]
            for method, terms in part.baselines(*batches).items():
                found.setdefault(method, {}).update({f"{name}.{term}": value for term, value in terms.items()})
        return found


def here(batch: Batch) -> Tensor:
    """[b] bool: rows that have anything."""
    return torch.stack([rows_with(stream) for stream in batch.values()]).any(0)


def _again(cost: Cost, part: str) -> Cost:
    return cost._replace(place=f"{cost.place} ({part})", parameters=0, trained=0)
