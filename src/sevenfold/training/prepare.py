"""What a recipe becomes: data split, tokenizers fitted, every default written out, model and objective built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sevenfold.assembly.model import Model
from sevenfold.assembly.wiring import check_wiring
from sevenfold.core.errors import BadSample, ConfigError, DataError, did_you_mean
from sevenfold.core.seeds import seed_of
from sevenfold.data.bad import BadSamples
from sevenfold.data.loader import Aligned, Items, Samples, look_through
from sevenfold.data.source import Source
from sevenfold.data.view import View
from sevenfold.exchange.origin import recall
from sevenfold.modality import Modality, check_views
from sevenfold.objective import Look, Objective
from sevenfold.training import cached
from sevenfold.training.completed import completed
from sevenfold.training.laid_out import laid_out
from sevenfold.training.load import objective_of, tokenizer_folder
from sevenfold.training.prepared import already
from sevenfold.training.recipe import Recipe, device_of
from sevenfold.training.start import begun_from, record_for


class Ready(NamedTuple):
    """A recipe made real: data split, tokenizers fitted, model and objective built and initialised from the seed."""

    recipe: Recipe
    source: Source
    train: Samples
    held_out: Samples
    train_items: Items
    held_out_items: Items
    fields: dict[str, str]
    objective: Objective
    bad: BadSamples
    batch: int

    @property
    def model(self) -> Model:
        return self.objective.model

    def samples(self, count: int, held_out: bool = True) -> list[dict[str, Any]]:
        """A few raw samples from all over the data (what is near in a file or folder is alike), stream → raw item."""
        items = self.held_out_items if held_out else self.train_items
        found: list[dict[str, Any]] = []
        here = self.source.at_hand(items.indices)
        for place in sorted({i * here // count for i in range(count)} if here else ()):
            try:
                sample = self.source[items.indices[place]]
            except BadSample:
                continue
            found.append({stream: sample.get(field) for stream, field in self.fields.items()})
        return found


FIT_ITEMS = 50_000
"""At most so many training items are shown to a tokenizer that learns."""
FIT_CHARACTERS = 50_000_000


def prepare(recipe: Recipe, tokenizers: Path | None = None, note: Callable[[str], None] = lambda _: None) -> Ready:
    """Make a recipe real. `tokenizers`: a run folder whose tokenizers are taken instead of fitting new ones.

    The recipe in the result is complete: every default that depended on the data is written out.
    """
    _check_early(recipe)
    start = None if recipe.start is None or tokenizers is not None else begun_from(recipe.start)
    modalities = {name: _modality(name, config) for name, config in recipe.streams.items()}
    for name, modality in modalities.items():
        check_views(modality.views, modality, f"streams.{name}.views")
    source = recipe.data.build()
    if len(source) == 0:
        raise DataError(f"{recipe.data.path}: holds no samples")
    train, held_out = source.split()
    fields = fields_of(recipe, source.fields)
    bad = BadSamples(recipe.data.bad_share, len(train))
    _share_tokenizers(modalities)
    held = already(source, recipe.streams, fields)
    for name, modality in modalities.items():
        if name == held and source.prepared is not None:
            modality.restore(source.prepared.tokenizer)
        elif tokenizers is not None:
            modality.restore(tokenizer_folder(tokenizers, name, len(modalities)))
        elif start is not None and start.knows(name, recipe.streams[name]):
            modality.tokenizer = start.model.modalities[name].tokenizer
        elif not modality.tokenizer.ready:
            note(f"fitting the {modality.tokenizer.kind} tokenizer of {name}")
            alike = [other for other in fields if modalities[other].tokenizer is modality.tokenizer]
            raws = [raw for other in alike for raw in raws_of(source, train, fields[other], modality, name, note)]
            modality.fit(raws)
            for line in modality.remarks(raws):
                note(f"{name}: {line}")
            if not modality.tokenizer.ready:
                raise DataError(
                    f"{recipe.data.path}: no training sample has a {fields[alike[0]]!r} to learn a tokenizer from"
                )
        if not modality.tokenizer.spells:
            raise ConfigError(
                f"streams.{name}.tokenizer: {recipe.start or 'the family'} has none of its own: name one that learns from the "
                "data ({kind: bpe, size: 4096}), or the folder of a published one ({kind: published, path: …})"
            )
        if recipe.streams[name].ends and not any(modality.tokenizer.around()):
            raise ConfigError(
                f"streams.{name}.ends: the {modality.tokenizer.kind} tokenizer has no begin and end tokens: set it to false"
            )
    recipe = completed(recipe, modalities, source, train, fields)
    modalities = {name: _again(config, modalities[name]) for name, config in recipe.streams.items()}
    torch.manual_seed(seed_of(recipe.seed, "weights"))
    model = Model(recipe.wiring, modalities)
    objective = objective_of(recipe.objective, model)
    cached.check(objective, recipe.train.accumulate, note)
    if start is not None:
        start.give(model, objective, note)
    elif tokenizers is not None:
        recall(model, tokenizers)
    elif recipe.family is not None:
        model.published = record_for(recipe.family, modalities)
    objective.settle()
    items: list[Items] = []
    sets: list[Samples] = []
    for part_of, views in ((train, True), (held_out, False)):
        chosen = items_of(recipe, source, part_of, modalities, fields, views, objective.looks(), objective.aligned())
        look_through(chosen, recipe.data.bad_share if views else 1.0)
        items.append(chosen)
        sets.append(laid_out(recipe, chosen, bad, modalities, note))
    if any(config.pack for config in recipe.streams.values()):
        bad.size = len(source)
        bad.check(len(source))
        bad.judged = True
    train_config = recipe.train
    assert train_config.batch is not None
    return Ready(recipe, source, sets[0], sets[1], items[0], items[1], fields, objective, bad, train_config.batch)


def items_of(
    recipe: Recipe,
    source: Source,
    indices: Sequence[int],
    modalities: dict[str, Modality],
    fields: dict[str, str],
    views: bool = False,
    looks: Mapping[str, Look] | None = None,
    aligned: Mapping[str, str] | None = None,
) -> Items:
    """Samples of a source as tokens of the recipe's streams, and of what the objective looks at; whole ones in a stream that
    is packed."""
    looked = {look.stream for look in (looks or {}).values()}
    encoders = {
        name: (fields[name], partial(modality.tokens, cut=not recipe.streams[name].pack))
        for name, modality in modalities.items()
        if name in fields and name not in looked
    }
    made = {
        name: (
            fields[look.stream],
            partial((look.modality or modalities[look.stream]).look, views=_views(look, modalities[look.stream])),
        )
        for name, look in (looks or {}).items()
    }
    pairs = [
        Aligned(
            name,
            of,
            sum(map(len, modalities[of].around())),
            recipe.streams[name].length,
            recipe.streams[of].length,
        )
        for name, of in (aligned or {}).items()
    ]
    return Items(source, indices, encoders, recipe.seed, views, made, pairs, source.lacking)


def _views(look: Look, modality: Modality) -> list[View]:
    """The views of a look, tried on an example of the modality: ConfigError for one that it does not have."""
    views = [view.build() for view in look.views]
    check_views(views, modality, "objective.views")
    return views


def _check_early(recipe: Recipe) -> None:
    """What can be refused before any data is read."""
    config = recipe.wiring
    check_wiring(config)
    recipe.objective.part.heads(recipe.objective, config, {})
    made = recipe.objective.part.makes(recipe.objective, recipe.wiring)
    packed = [name for name, stream in recipe.streams.items() if stream.pack]
    for name in packed:
        if name in made:
            raise ConfigError(f"streams.{name}.pack: it is made of {made[name]!r} by the objective: leave it out")
    if packed and len(recipe.streams) - len(made) > 1:
        raise ConfigError(f"streams.{packed[0]}.pack: only a recipe with one stream can lay its items end to end")
    if recipe.train.batch is not None and recipe.train.batch_tokens is not None:
        raise ConfigError("train: give batch or batch_tokens, not both")
    if recipe.train.batch is not None and recipe.train.accumulate > recipe.train.batch:
        raise ConfigError(f"train.accumulate: {recipe.train.accumulate} pieces of a batch of {recipe.train.batch}")
    if recipe.train.device is not None:
        device_of(recipe.train.device)


def _modality(name: str, config: Modality.Config) -> Modality:
    try:
        return config.build()
    except ConfigError as error:
        raise ConfigError(f"streams.{name}: {error}") from None


def _share_tokenizers(modalities: Mapping[str, Modality]) -> None:
    """One tokenizer for streams that have one embedding table: it learns from all of them."""
    for name, modality in modalities.items():
        other = modalities.get(modality.config.table or "")
        if other is not None:
            if modality.config.tokenizer != other.config.tokenizer:
                raise ConfigError(
                    f"streams.{name}.tokenizer: must be that of {modality.config.table!r}, whose embedding it has (table)"
                )
            modality.tokenizer = other.tokenizer


def _again(config: Modality.Config, fitted: Modality) -> Modality:
    """The modality of a completed config, with the tokenizer that was fitted."""
    modality = config.build()
    modality.tokenizer = fitted.tokenizer
    return modality


def fields_of(recipe: Recipe, fields: dict[str, str]) -> dict[str, str]:
    """Stream → the field of a sample that it reads; without those that the objective makes."""
    made = recipe.objective.part.makes(recipe.objective, recipe.wiring)
    return {name: field_of(name, stream, fields) for name, stream in recipe.streams.items() if name not in made}


def field_of(name: str, config: Modality.Config, fields: dict[str, str]) -> str:
    """The field of a sample that a stream reads."""
    if config.field is not None:
        if config.field not in fields:
            raise ConfigError(
                f"streams.{name}.field: the data has no {config.field!r}{did_you_mean(config.field, fields)}"
            )
        return config.field
    if name in fields:
        return name
    fitting = [field for field, kind in fields.items() if kind == config.kind]
    if len(fitting) == 1:
        return fitting[0]
    raise ConfigError(f"streams.{name}.field: say which of the data's fields {sorted(fields)} it reads")


def raws_of(
    source: Source, indices: Sequence[int], field: str, modality: Modality, name: str, note: Callable[[str], None]
) -> list[Any]:
    """Readable training items for a tokenizer to learn from; `note` is told how many samples have none. DataError if all."""
    found, characters, first, lost, lacking = [], 0, "", 0, source.lacking.get(field, frozenset())
    for index in indices[:FIT_ITEMS]:
        try:
            raw = None if index in lacking else source[index].get(field)
            if raw is None:
                lost += 1
                continue
            found.append(modality.check(raw))
        except (BadSample, ValueError) as error:
            where = "" if isinstance(error, BadSample) else f"{source.where(index)}: "
            first = first or f"; the first is {where}{error}"
            continue
        characters += len(raw) if isinstance(raw, str) else 0
        if characters > FIT_CHARACTERS:
            break
    if lost and found:
        note(f"{name}: {lost:,} of {lost + len(found):,} training samples have none, and are no targets of it")
    if not found:
        raise DataError(
            f"{source.config.path}: no training sample has a {field!r} for the {modality.tokenizer.kind} tokenizer to "
            f"learn from{first}"
        )
    return found
