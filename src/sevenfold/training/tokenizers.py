"""The tokenizers of a recipe: shared between streams of one embedding table, fitted to the training items, and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sevenfold.core.errors import BadSample, ConfigError, DataError
from sevenfold.data.source import Source
from sevenfold.modality import Modality
from sevenfold.training.recipe import Recipe

FIT_ITEMS = 50_000
"""At most so many training items are shown to a tokenizer that learns."""
FIT_CHARACTERS = 50_000_000


def share_tokenizers(modalities: Mapping[str, Modality]) -> None:
    """One tokenizer for streams that have one embedding table: it learns from all of them."""
    for name, modality in modalities.items():
        other = modalities.get(modality.config.table or "")
        if other is not None:
            if modality.config.tokenizer != other.config.tokenizer:
                raise ConfigError(
                    f"streams.{name}.tokenizer: must be that of {modality.config.table!r}, whose embedding it has (table)"
                )
            modality.tokenizer = other.tokenizer


def fit_tokenizer(
    name: str,
    modalities: Mapping[str, Modality],
    source: Source,
    train: Sequence[int],
    fields: Mapping[str, str],
    note: Callable[[str], None],
) -> None:
    """Fit the tokenizer of a stream to the training items, and to those of the streams that share it."""
    modality = modalities[name]
    note(f"fitting the {modality.tokenizer.kind} tokenizer of {name}")
    alike = [other for other in fields if modalities[other].tokenizer is modality.tokenizer]
    raws = [raw for other in alike for raw in raws_of(source, train, fields[other], modality, name, note)]
    modality.fit(raws)
    for line in modality.remarks(raws):
        note(f"{name}: {line}")
    if not modality.tokenizer.ready:
        raise DataError(
            f"{source.config.path}: no training sample has a {fields[alike[0]]!r} to learn a tokenizer from"
        )


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


def check_tokenizer(recipe: Recipe, name: str, modality: Modality) -> None:
    """ConfigError for a tokenizer that lacks what its stream needs."""
    if not modality.tokenizer.spells:
        raise ConfigError(
            f"streams.{name}.tokenizer: {recipe.start or 'the family'} has none of its own: name one that learns from the "
            "data ({kind: bpe, size: 4096}), or the folder of a published one ({kind: published, path: …})"
        )
    if recipe.streams[name].ends and not any(modality.tokenizer.around()):
        raise ConfigError(
            f"streams.{name}.ends: the {modality.tokenizer.kind} tokenizer has no begin and end tokens: set it to false"
        )
