"""A recipe with every default that depends on the data written out: lengths, packing, heads, batch, precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sevenfold.core.errors import BadSample, ConfigError
from sevenfold.data.source import Source
from sevenfold.modality import Modality
from sevenfold.training.precision import resolve
from sevenfold.training.recipe import Recipe, device_of


def completed(
    recipe: Recipe, modalities: dict[str, Modality], source: Source, train: Sequence[int], fields: dict[str, str]
) -> Recipe:
    """The recipe with every default that depends on the data written out."""
    streams = dict(recipe.streams)
    for name, config in recipe.streams.items():
        modality = modalities[name]
        changes: dict[str, Any] = {}
        read = any(name in trunk.inputs for trunk in recipe.trunks.values())
        if config.pack is None:
            free = modality.tokenizer.size is not None and modality.tokenizer.axes == 1
            alone = name in fields and len(fields) == 1
            changes["pack"] = free and read and alone and not recipe.objective.part.whole_items
        pack = changes.get("pack", config.pack)
        if pack and recipe.objective.part.whole_items:
            raise ConfigError(f"streams.{name}.pack: {recipe.objective.kind} needs items one by one: set it to false")
        if pack and not (modality.tokenizer.size is not None and modality.tokenizer.axes == 1):
            raise ConfigError(f"streams.{name}.pack: only ids in a line can be laid end to end")
        if config.length is None and name in fields:
            longest = _longest(modality, source, train, fields[name])
            free = modality.tokenizer.axes < 2 and modality.tokenizer.layout() is None
            usual = min(longest, 1024) if free else None
            changes["length"] = max(256, usual or 0) if pack == "whole" else 256 if pack else usual
        if changes:
            streams[name] = config.replace(**changes)
    wiring = recipe.replace(streams=streams).wiring
    sizes = {name: (m.tokenizer.size or m.tokenizer.features or 0) for name, m in modalities.items()}
    heads = {**recipe.heads, **recipe.objective.part.heads(recipe.objective, wiring, sizes)}
    settings = recipe.train
    if settings.batch is None:
        lengths = [stream.length for stream in streams.values() if stream.length]
        per_item = max(lengths, default=1)
        batch = max(1, round(settings.batch_tokens / per_item)) if settings.batch_tokens else 32
        settings = settings.replace(batch=batch, batch_tokens=None)
    if settings.precision == "auto":
        widest = max(trunk.width for trunk in recipe.trunks.values())
        settings = settings.replace(precision=resolve("auto", device_of(settings.device), widest))
    if settings.evaluate_every is None:
        settings = settings.replace(evaluate_every=max(1, settings.steps // 10))
    if settings.save_every is None:
        settings = settings.replace(save_every=max(1, settings.steps // 4))
    return recipe.replace(streams=streams, heads=heads, train=settings)


def _longest(modality: Modality, source: Source, indices: Sequence[int], field: str, look: int = 500) -> int:
    """The most tokens of an item among some training items."""
    here = source.at_hand(indices)
    longest, every = 1, max(1, here // look)
    for index in indices[:here:every]:
        try:
            raw = source[index].get(field)
            if raw is not None:
                longest = max(longest, len(modality.tokens(raw).values))
        except (BadSample, ValueError):
            continue
    return longest
