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
from sevenfold.training.start import Start, begun_from, record_for
from sevenfold.training.tokenizers import check_tokenizer, fit_tokenizer, share_tokenizers


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
    bad = BadSamples(recipe.data.bad_share, len(train) + len(held_out))
    share_tokenizers(modalities)
    held = already(source, recipe.streams, fields)
    for name, modality in modalities.items():
        if name == held and source.prepared is not None:
            modality.restore(source.prepared.tokenizer)
        elif tokenizers is not None:
            modality.restore(tokenizer_folder(tokenizers, name, len(modalities)))
        elif start is not None and start.knows(name, recipe.streams[name]):
            modality.tokenizer = start.model.modalities[name].tokenizer
        elif not modality.tokenizer.ready:
            fit_tokenizer(name, modalities, source, train, fields, note)
        check_tokenizer(recipe, name, modality)
    recipe = completed(recipe, modalities, source, train, fields)
    modalities = {name: _again(config, modalities[name]) for name, config in recipe.streams.items()}
    objective = _objective(recipe, modalities, start, tokenizers, note)
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
    assert recipe.train.batch is not None
    return Ready(recipe, source, sets[0], sets[1], items[0], items[1], fields, objective, bad, recipe.train.batch)


def _objective(
    recipe: Recipe,
    modalities: dict[str, Modality],
    start: Start | None,
    tokenizers: Path | None,
    note: Callable[[str], None],
) -> Objective:
    """The objective with its model, whose weights are drawn from the seed, or are those of what it begins from."""
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
    return objective


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
