"""Which tokens of a row are hidden as spans, and the two texts that this makes: one with gaps, one that fills them.

    n_noise = clamp(round(ratio L), 1, L - 1),   n_spans = max(1, round(n_noise / length))      (round half to even)
    L_kept = k_1 + ... + k_s,  n_noise = h_1 + ... + h_s:  each a uniform random composition into s = n_spans positive parts
    the row is k_1 kept, h_1 hidden, k_2 kept, h_2 hidden ...

Raffel 2019 (T5), arXiv:1910.10683 section 3.1.4, as its authors' code draws them (text-to-text-transfer-transformer,
random_spans_noise_mask). A row so short that it has one span only always hides its end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sevenfold.core.types import Stream


def numbers(lengths: Tensor, ratio: float, length: float) -> tuple[Tensor, Tensor]:
    """(tokens hidden, spans) of rows of `lengths` tokens; 0 and 0 of rows with fewer than two."""
    noise = (lengths.double() * ratio).round().long().clamp(min=1).minimum(lengths - 1).clamp(min=0)
    spans = (noise.double() / length).round().long().clamp(min=1)
    return noise, spans.minimum(noise).minimum(lengths - noise).clamp(min=0)


def parts(total: Tensor, count: Tensor, n: int) -> Tensor:
    """[b n]: which part token j of `total` [b] is in, when they are a uniform random composition into `count` [b] parts.
    Places from `total` on say nothing."""
    chance = torch.rand(len(total), n, device=total.device)
    place = torch.arange(n, device=total.device)
    chance = torch.where((place > 0) & (place < total[:, None]), chance, 2.0)
    rank = chance.argsort(dim=1, stable=True).argsort(1)
    return ((rank < (count - 1)[:, None]) & (chance < 2)).long().cumsum(1)


def noise_mask(body: Tensor, ratio: float, length: float) -> Tensor:
    """[b n] bool: the hidden tokens of each row, among those of `body` [b n] bool, which are one run."""
    n = body.shape[1]
    total = body.sum(1)
    noise, spans = numbers(total, ratio, length)
    kept, hidden = parts(total - noise, spans, n), parts(noise, spans, n)
    place = torch.arange(n, device=body.device).expand(len(body), -1)
    real = place < noise[:, None]
    sizes = torch.zeros(len(body), n + 1, dtype=torch.long, device=body.device)
    sizes.scatter_add_(1, kept, (place < (total - noise)[:, None]).long())
    before = sizes.cumsum(1).gather(
        1, hidden
    )  # kept tokens in front of a hidden one: those of its part, and of earlier ones
    start = body.long().argmax(1)
    index = torch.where(real, place + before + start[:, None], n)
    mask = torch.zeros(len(body), n + 1, dtype=torch.bool, device=body.device)
    return mask.scatter_(1, index, True)[:, :n]


def begins(noise: Tensor) -> Tensor:
    """[b n] bool: the first token of each span."""
    before = torch.zeros_like(noise)
    before[:, 1:] = noise[:, :-1]
    return noise & ~before


def with_gaps(ids: Tensor, body: Tensor, noise: Tensor, sentinels: Tensor) -> tuple[Tensor, Tensor]:
    """(ids [b n], which of them stay): each span is one sentinel."""
    first = begins(noise)
    return torch.where(first, numbered(first, sentinels), ids), body & (~noise | first)


def fillings(ids: Tensor, noise: Tensor, sentinels: Tensor) -> tuple[Tensor, Tensor]:
    """(ids [b 2n], which of them stay): each span behind its sentinel."""
    first = begins(noise)
    both = torch.stack([numbered(first, sentinels), ids], -1).flatten(1)
    return both, torch.stack([first, noise], -1).flatten(1)


def numbered(first: Tensor, sentinels: Tensor) -> Tensor:
    return sentinels[(first.long().cumsum(1) - 1).clamp(min=0)]


def written(ids: Tensor, stays: Tensor, before: Sequence[int], behind: Sequence[int]) -> Stream:
    """Those of ids [b n] that stay, moved together, with the same ids before and behind each row; a row of which nothing stays
    is padding."""
    rows, number = len(ids), stays.sum(1)
    whole = torch.where(number > 0, number + len(before) + len(behind), 0)
    width = max(int(whole.max()) if rows else 0, 1)
    values = torch.zeros(rows, width, dtype=torch.long, device=ids.device)
    row, column = stays.nonzero(as_tuple=True)
    values[row, stays.long().cumsum(1)[row, column] - 1 + len(before)] = ids[row, column]
    there = (number > 0).nonzero()[:, 0]
    for place, id in enumerate(before):
        values[there, place] = id
    for place, id in enumerate(behind):
        values[there, number[there] + len(before) + place] = id
    places = torch.arange(width, device=ids.device)
    valid = places < whole[:, None]
    return Stream(values, places.expand(rows, -1)[..., None], None if bool(valid.all()) else valid)
