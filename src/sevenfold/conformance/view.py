"""What every view must do: see the contract in sevenfold.data.view."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from sevenfold import modality as modalities
from sevenfold.conformance._kit import expect, refusal
from sevenfold.conformance.tokenization import same
from sevenfold.core.cell import Cell, Micrograph
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, find
from sevenfold.core.rooms import kinds
from sevenfold.core.seeds import numpy_generator


def check_view(config: Any) -> None:
    """Items of its modalities become other such items, by the generator alone; the item that is given is left alone."""
    view, taken, changed = config.build(), 0, 0
    for kind in kinds("modality"):
        part = find("modality", kind)
        modality = decode(part.Config, {}).build()
        if not fits(view, modality):
            continue
        taken += 1
        for index, raw in enumerate(map(modality.check, part.example(0))):
            before = _copy(raw)
            first, second = (view(raw, numpy_generator("view", index)) for _ in range(2))
            expect(same(first, second), f"{kind}: the same generator gives something else")
            expect(same(raw, before), f"{kind}: the item that was given is changed")
            expect(type(first) is type(raw), f"{kind}: a {type(raw).__name__} becomes a {type(first).__name__}")
            kinds_of = (np.asarray(getattr(item, "pixels", item)).dtype.kind for item in (raw, first))
            expect(len(set(kinds_of)) == 1, f"{kind}: numbers of another kind")
            modality.check(modality.within(first))
            changed += not same(first, before)
    expect(taken, "takes the items of no modality")
    expect(changed, "none of the example items is changed")


def check_others(config: Any) -> None:
    """Items of other modalities are refused in one line, before any data is read."""
    view = config.build()
    for kind in kinds("modality"):
        modality = decode(find("modality", kind).Config, {}).build()
        if not fits(view, modality):
            message = refusal(partial(modalities.check_views, [view], modality, "streams.x.views"), ConfigError)
            expect(message.startswith("streams.x.views: "), f"the refusal does not name the place: {message}")


def fits(view: Any, modality: Any) -> bool:
    """Whether a view can be made of items of a modality."""
    try:
        modalities.check_views([view], modality, "views")
    except ConfigError:
        return False
    return True


def _copy(raw: Any) -> Any:
    if isinstance(raw, Cell):
        return Cell(raw.genes, np.array(raw.at), np.array(raw.counts))
    if isinstance(raw, Micrograph):
        return Micrograph(raw.markers, raw.pixels.copy())
    return raw.copy() if isinstance(raw, np.ndarray | dict) else raw
