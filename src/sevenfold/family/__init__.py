"""Families: published architectures as wiring of our parts, their sizes, and a map of the weights that goes both ways.

    ours = take(theirs)      theirs = give(ours)      one Rule per tensor of ours; give(take(t)) = t

The contract of this room. A family's Config holds the fields of the published `config.json` that its numbers depend on,
under their published names; a value that our parts cannot express is refused by the field's type. Weights are named as
in published files (`model.safetensors`), not as in some version's memory. A name left over or missing is an error; what a
file holds for other uses (a head of another task) is named by the family, and carried along as luggage.

    family = find("family", "gpt2").read(config_json)              # or .of_size("medium")
    model = Model(family.model(), modalities)
    family.load(weights, model)

Folders are read and written by sevenfold.exchange.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self, get_args

import torch
from torch import Tensor, nn

from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import CheckpointError, ConfigError, did_you_mean
from sevenfold.core.types import Batch, Stream
from sevenfold.family._rules import (
    LUGGAGE,
    OBJECTIVE,
    SAME,
    STACK,
    TRANSPOSE,
    Op,
    Rule,
    affine,
    begun,
    blocks,
    constant,
    first_rows,
    lead,
    patches,
    repeat,
    stack,
    stacked,
    unread,
)

__all__ = [
    "LUGGAGE",
    "OBJECTIVE",
    "SAME",
    "STACK",
    "TRANSPOSE",
    "Op",
    "Rule",
    "affine",
    "begun",
    "blocks",
    "constant",
    "first_rows",
    "lead",
    "patches",
    "repeat",
    "stack",
    "stacked",
    "unread",
    "Family",
    "State",
    "cut",
    "matches",
    "state_of",
]

State = Mapping[str, Tensor]
"""Name → tensor. Of ours: the model's names, `objective.NAME` for what an objective holds (a mask token), and
`luggage.NAME` for what is only carried along."""
TRIED = 24
"""Tokens of a trial."""


class Family(part.Part):
    """One published architecture, of the size that its config says."""

    room = "family"

    class Config(part.Config):
        """The published fields. `model_type: Literal[…]`, with its default, says which published configs it reads."""

    states: Mapping[str, str] = {}
    """Trunk → where the reference's output keeps the stream before and after each of its blocks (a dotted name:
    `hidden_states`, `encoder_hidden_states`), by which a conversion is verified."""
    first_state: ClassVar[int] = 0
    """How many blocks the first of these states is behind: 1 where the reference leaves out the embeddings (Mamba)."""
    objective: Mapping[str, Any] = {}
    """What such a model goes on learning by when nobody says: an objective, as a recipe has it."""
    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Name of a published size → the fields in which it differs from the defaults."""
    spellings: Sequence[tuple[str, str]] = ()
    """(pattern, replacement): other ways in which published files spell names, applied in order."""
    unused: ClassVar[Sequence[str]] = ()
    """Patterns of published names that hold constants or copies: left behind, and not needed on the way back. Here and in
    `carried`, a name that a rule has is not meant."""
    copies: Mapping[str, str] = {}
    """Pattern of published names → the name that each must be equal to, number by number (a tied head that is written
    twice); its groups may be used as \\1. Left behind; an untied one is refused."""
    carried: ClassVar[Sequence[str]] = ()
    """Patterns of published names that the model has no use for, and that are nobody's copy (a pooler, a head of another
    task): kept as luggage, and written back as they were."""

    def __init__(self, config: Any):
        self.config = config
        self.preprocessor: Mapping[str, Any] = {}
        """What the published `preprocessor_config.json` says, where there is one (means of colours, sizes)."""

    @classmethod
    def model_types(cls) -> tuple[str, ...]:
        """The `model_type`s of published configs that it reads."""
        return get_args(cls.Config.model_fields["model_type"].annotation)

    @classmethod
    def read(cls, published: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None) -> Self:
        """The family as a published `config.json` describes it; ConfigError for what cannot be expressed."""
        named = published.get("model_type", cls.model_types()[0])
        if named not in cls.model_types():
            raise ConfigError(
                f"{cls.kind}: the config is of a {named!r}, not a {' or '.join(map(repr, cls.model_types()))}"
            )
        family = part.decode(cls.Config, _known(cls.Config, published), f"{cls.kind} config").build()
        family.preprocessor = preprocessor or {}
        return family

    @classmethod
    def of_size(cls, name: str) -> Self:
        """One of the published sizes."""
        if name not in cls.sizes:
            raise ConfigError(f"{cls.kind}: there is no size {name!r}{did_you_mean(name, cls.sizes)}")
        return cls.read(cls.sizes[name])

    def published(self) -> dict[str, Any]:
        """The published `config.json`, but for what says nothing about numbers (ids of special tokens, versions)."""
        fields = part.encode(self.config)
        del fields["kind"]
        return fields

    def model(self) -> ModelConfig:
        """Our model."""
        raise NotImplementedError

    def rules(self) -> list[Rule]:
        """The map of the weights."""
        raise NotImplementedError

    def preprocessor_published(self, model: Model) -> dict[str, Any] | None:
        """The published `preprocessor_config.json` of a model; None where it needs none."""
        return dict(self.preprocessor) or None

    def trial(self, model: Model) -> tuple[Batch, dict[str, Any]]:
        """Random inputs for a look at both implementations: (our batch, the reference's arguments). Words of the one stream of
        ids, pixels of the one stream of pictures."""
        draw = torch.Generator().manual_seed(0)
        batch: Batch = {}
        given: dict[str, Any] = {}
        for name, modality in model.modalities.items():
            if not any(name in trunk.config.inputs for trunk in model.trunks.values()):
                continue
            tokenizer, length = modality.tokenizer, min(modality.config.length or TRIED, TRIED)
            if tokenizer.size is not None:
                ids = torch.randint(4, tokenizer.spelled() or tokenizer.size, (2, length), generator=draw)
                batch[name] = Stream(ids, torch.arange(length).expand(2, -1)[..., None])
                given["input_ids"] = ids
            else:
                vision = getattr(self.config, "vision_config", self.config)
                (height, width), more = self.seen(vision)
                pixels = torch.randn(2, vision.num_channels, height, width, generator=draw)
                batch[name] = cut(pixels, vision.patch_size)
                given |= {"pixel_values": pixels, **more}
        return batch, given

    def seen(self, vision: Any) -> tuple[tuple[int, int], dict[str, Any]]:
        """Height and width of the pictures that it takes, and what the reference must be told beside them."""
        return (vision.image_size, vision.image_size), {}

    def compared(self, state: Tensor, batch: Batch) -> Tensor:
        """The tokens of a state [b n d], of either implementation, that both keep in one order: all, unless the reference
        shuffles some."""
        return state

    # Weights
    def mapped(self) -> set[str]:
        """The published names that rules have."""
        return {name for rule in self.rules() for name in rule.names[1]}

    def aboard(self, names: Iterable[str]) -> list[str]:
        """Those of published names that are carried along."""
        mapped = self.mapped()
        return [name for name in names if name not in mapped and matches(self.carried, name)]

    def from_published(self, state: State) -> dict[str, Tensor]:
        """Our tensors from published ones, which they may share memory with. CheckpointError names a tensor that is missing,
        left over or wrong."""
        given = self.respelled(state)
        found = {f"{LUGGAGE}{name}": given.pop(name).detach() for name in self.aboard(given)}
        for rule in self.rules():
            found |= self._apply(rule.op.take, rule.names[1], rule.names[0], given, "the published weights lack")
        self._nothing_left(given, "the published weights hold")
        return found

    def to_published(self, state: State) -> dict[str, Tensor]:
        """Published tensors from ours (see `state_of`), which they may share memory with. CheckpointError as in
        `from_published`; what an objective has besides (teachers, projectors) is not published."""
        given = dict(state)
        found: dict[str, Tensor] = {}
        for rule in self.rules():
            spared = (LUGGAGE, OBJECTIVE) if rule.op.spared else LUGGAGE
            found |= self._apply(rule.op.give, rule.names[0], rule.names[1], given, "the model lacks", spared)
        for name in list(given):
            if name.startswith(LUGGAGE) and matches(self.carried, name.removeprefix(LUGGAGE)):
                found[name.removeprefix(LUGGAGE)] = given.pop(name).detach()
        self._nothing_left({k: v for k, v in given.items() if not k.startswith(OBJECTIVE)}, "the model has")
        return found

    def load(self, state: State, model: Model, objective: nn.Module | None = None) -> None:
        """Put published weights into a model (which may be on the meta device), and into its objective where that holds
        some of them (what it has no use for is kept as luggage). They are not copied: a tensor that is the same in both
        layouts stays where it is, in the file's memory map."""
        self.place(self.from_published(state), model, objective)

    def place(self, found: State, model: Model, objective: nn.Module | None = None) -> None:
        """Put what `from_published` gives into a model, and into its objective. CheckpointError, before anything is changed,
        for a name too few or too many, or another shape."""
        learned = {} if objective is None else dict(objective.named_parameters())
        held = {f"{OBJECTIVE}{name}" for name in learned}
        own = {k: v for k, v in state_of(model, objective).items() if k in held or k not in model.luggage}
        kept = {name: value for name, value in found.items() if name.startswith(LUGGAGE)}
        kept |= {name: value for name, value in found.items() if name.startswith(OBJECTIVE) and name not in own}
        found = {name: value for name, value in found.items() if name not in kept}
        for name in sorted(own.keys() ^ found.keys()):
            where = "the published weights lack" if name in own else "the model lacks"
            raise CheckpointError(f"{self.kind}: {where} {name!r}")
        for name, value in found.items():
            if own[name].shape != value.shape:
                shapes = f"{list(value.shape)} as published, and {list(own[name].shape)} in the model"
                raise CheckpointError(f"{self.kind}: {name} has shape {shapes}")
        ours = {name: value for name, value in found.items() if not name.startswith(OBJECTIVE)}
        model.load_state_dict(ours, assign=True)
        model.luggage = kept
        with torch.no_grad():
            for name, parameter in learned.items():
                if f"{OBJECTIVE}{name}" in found:
                    parameter.copy_(found[f"{OBJECTIVE}{name}"])

    def _apply(
        self,
        op: Callable,
        names: Sequence[str],
        made: Sequence[str],
        given: dict[str, Tensor],
        lacks: str,
        spared: str | tuple[str, ...] = LUGGAGE,
    ) -> dict[str, Tensor]:
        for name in names:
            if name not in given and not name.startswith(spared):
                raise CheckpointError(f"{self.kind}: {lacks} {name!r}")
        taken = [given.pop(name, None) for name in names]
        try:
            tensors = op([None if tensor is None else tensor.detach() for tensor in taken])
        except (RuntimeError, ValueError, IndexError) as error:
            raise CheckpointError(f"{self.kind}: {names[0]!r}: {str(error).splitlines()[0]}") from None
        return {name: tensor.contiguous() for name, tensor in zip(made, tensors, strict=True)}

    def respell(self, name: str) -> str:
        """A published name as this family spells it."""
        for pattern, replacement in self.spellings:
            name = re.sub(pattern, replacement, name)
        return name

    def respelled(self, state: State) -> dict[str, Tensor]:
        """Published tensors under the names that the rules have, without constants and copies. CheckpointError for a name
        that stands there in two spellings, and for a copy that is none."""
        found: dict[str, Tensor] = {}
        mapped = self.mapped()
        for name, value in state.items():
            name = self.respell(name)
            if matches(self.unused, name) and name not in mapped:
                continue
            if name in found:
                raise CheckpointError(f"{self.kind}: the published weights hold {name!r} twice, in two spellings")
            found[name] = value
        for name in list(found):
            self._check_copy(name, found)
        return found

    def _check_copy(self, name: str, found: dict[str, Tensor]) -> None:
        """Take out a tensor that is another's copy. CheckpointError if it is not."""
        for pattern, target in self.copies.items():
            match = re.fullmatch(pattern, name)
            if match:
                copy, original = found.pop(name), found.get(match.expand(target))
                if original is None or original.shape != copy.shape or not torch.equal(original, copy):
                    raise CheckpointError(
                        f"{self.kind}: {name!r} is not a copy of {match.expand(target)!r}: the head is not tied, and this family "
                        "ties it"
                    )
                return

    def _nothing_left(self, given: dict[str, Tensor], holds: str) -> None:
        if given:
            more = f" (and {len(given) - 1} more)" if len(given) > 1 else ""
            raise CheckpointError(f"{self.kind}: {holds} {next(iter(given))!r}, which has no place{more}")


def matches(patterns: Sequence[str], name: str) -> bool:
    """Whether a name is one that a pattern means."""
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def cut(pixels: Tensor, patch: int) -> Stream:
    """Pictures [b C H W] as a stream of patches [b n P*P*C], row by row; in a patch by row, column, channel."""
    b, channels, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    values = pixels.reshape(b, channels, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
    coords = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    return Stream(values.reshape(b, rows * columns, -1), coords.expand(b, -1, -1))


def _known(config: type[part.Config], published: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a config has, of all that a published one says; likewise inside of configs in it."""
    found = {name: published[name] for name in config.model_fields if name in published}
    for name, value in found.items():
        inner = config.model_fields[name].annotation
        if isinstance(value, Mapping) and isinstance(inner, type) and issubclass(inner, part.Config):
            found[name] = _known(inner, value)
    return found


def state_of(model: Model, objective: nn.Module | None = None) -> dict[str, Tensor]:
    """What `to_published` takes: the model's tensors and luggage, and the objective's own parameters as `objective.NAME`."""
    own = {} if objective is None else dict(objective.named_parameters())
    return {
        **model.luggage,
        **model.state_dict(),
        **{f"{OBJECTIVE}{name}": value.detach() for name, value in own.items() if not name.startswith("model.")},
    }
