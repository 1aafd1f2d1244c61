"""Tokens of several items into one batch: stacked where lengths agree, padded at the end where they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sevenfold.core.types import Batch, Stream, Tokens


def collate(items: Sequence[Mapping[str, Tokens]]) -> Batch:
    """One dict from stream to Tokens per item → one Stream per name, [b n …].

    An item without some stream (a missing modality) gets a row of padding there.
    """
    names = list(dict.fromkeys(name for item in items for name in item))
    return {name: _stack([item.get(name) for item in items]) for name in names}


def _stack(rows: Sequence[Tokens | None]) -> Stream:
    first = next(row for row in rows if row is not None)
    lengths = [0 if row is None else len(row.values) for row in rows]
    longest = max(max(lengths), 1)
    values = np.zeros((len(rows), longest, *first.values.shape[1:]), first.values.dtype)
    coords = np.zeros((len(rows), longest, first.coords.shape[1]), first.coords.dtype)
    packed = any(row is not None and row.segments is not None for row in rows)
    segments = np.zeros((len(rows), longest), np.int64) if packed else None
    framed = any(row is not None and row.frames is not None for row in rows)
    frames = np.zeros((len(rows), longest, 4, 3), np.float32) if framed else None
    for place, row in enumerate(rows):
        if row is None:
            continue
        values[place, : len(row.values)] = row.values
        coords[place, : len(row.values)] = row.coords
        if segments is not None and row.segments is not None:
            segments[place, : len(row.values)] = row.segments
        if frames is not None and row.frames is not None:
            frames[place, : len(row.values)] = row.frames
    valid = None
    if min(lengths) < longest:
        valid = torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]
    return Stream(
        torch.from_numpy(values),
        torch.from_numpy(coords),
        valid,
        None if segments is None else torch.from_numpy(segments),
        None if frames is None else torch.from_numpy(frames),
    )
