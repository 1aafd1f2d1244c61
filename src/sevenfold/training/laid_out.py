"""Items as they are trained on: one by one, end to end in windows, whole ones packed into rows; by their shares in a mixture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from sevenfold.data.bad import BadSamples
from sevenfold.data.loader import Items, Samples
from sevenfold.data.mixed import Mixed, shares_of
from sevenfold.data.numbers import within
from sevenfold.data.packing import Rows
from sevenfold.data.streamed import Streamed
from sevenfold.data.windows import Windows, laid
from sevenfold.modality import Modality
from sevenfold.training.recipe import Recipe


def laid_out(
    recipe: Recipe,
    items: Items,
    bad: BadSamples,
    modalities: Mapping[str, Modality],
    note: Callable[[str], None] = lambda _: None,
) -> Samples:
    """Items as they are trained on, by their shares where the source is a mixture; `note` is told of these."""
    found, weights = {}, []
    for one in items.source.ingredients:
        indices = within(items.indices, one.indices)
        if len(indices):
            found[one.name] = _one(recipe, items.of(indices), bad, modalities)
            weights.append(one.weight or len(found[one.name]))
    if not found:
        return _one(recipe, items, bad, modalities)
    together = Mixed(found, shares_of(weights, items.source.ingredients[0].temperature), items.seed, items.views)
    for name, count in together.counts.items() if items.views else ():
        passes = together.passes[name]
        note(f"mix: {name}: {count:,} of {len(together):,} items an epoch, which passes through it {passes:.3g} times")
    return together


def _one(recipe: Recipe, items: Items, bad: BadSamples, modalities: Mapping[str, Modality]) -> Samples:
    """Items as they are trained on: one by one, end to end in windows, or whole ones packed into rows."""
    packed = [name for name, config in recipe.streams.items() if config.pack]
    if not packed:
        return items
    name, config, modality = packed[0], recipe.streams[packed[0]], modalities[packed[0]]
    assert config.length is not None
    line = items.source.line(items.indices)
    if line is None:
        around = modality.around()
        line = laid(
            items, name, items.source.continuous, bad.note, around if any(around) else None, modality.tokenizer.size
        )
    layout = Rows if config.pack == "whole" else Windows
    lay = partial(layout, stream=name, length=config.length, seed=items.seed, views=items.views)
    if line.files.group is None:
        return lay(line)
    least, count = 1 if layout is Rows else config.length, partial(layout.count_of, length=config.length)
    return Streamed(line, line.files.group, least, items.seed, items.views, lay, count)
