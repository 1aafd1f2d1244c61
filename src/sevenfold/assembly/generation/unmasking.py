"""Filling in hidden tokens with a trunk that sees both sides, some in every step, the rest hidden still.

    hidden after step t of T: floor(N cos(pi t / 2T)) (cosine), floor(N (1 - t/T)) (linear), at least one less than before
    kept in a step: those of greatest log p(x_i) + noise (1 - t/T) g_i, g Gumbel (confidence); or any (random)

Chang 2022 (MaskGIT), arXiv:2202.04200 section 3.2; for text Ghazvininejad 2019, arXiv:1904.09324. What is given never
changes, special ids are never put in. Models: those of the objective masked_token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sevenfold.assembly.generation.row import Drawn
from sevenfold.assembly.generation.settings import Unmasking
from sevenfold.assembly.prompt import reads, spread
from sevenfold.core.errors import CheckpointError, ConfigError, DataError, did_you_mean
from sevenfold.core.seeds import torch_generator
from sevenfold.core.types import Batch, Stream, Tokens, wide
from sevenfold.data.collate import collate
from sevenfold.modality import Modality

if TYPE_CHECKING:
    from sevenfold.assembly.model import Model

MASK = "<mask>"
"""How a hidden token is written in a text."""
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda share: math.cos(math.pi / 2 * share),
    "linear": lambda share: 1 - share,
}
"""Share of steps done → share of tokens that are hidden still."""
ORDERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "confidence": lambda logs, chance: logs,
    "random": lambda logs, chance: chance,
}
"""(log-probabilities [b n], uniform numbers [b n]) → what is kept first where it is greatest."""


def fillable(model: Model, stream: str | None) -> tuple[str, str]:
    """(stream, head) that a trunk which sees both sides can fill in."""
    can = {
        head.stream: name
        for name, head in model.config.heads.items()
        if head.stream is not None
        and head.pool == "none"
        and not model.config.trunks[head.trunk].mask.causal
        and head.stream in model.config.trunks[head.trunk].inputs
        and model.modalities[head.stream].tokenizer.size is not None
        and "mask" in model.modalities[head.stream].tokenizer.specials
    }
    if not can:
        raise ConfigError(
            "this model fills in nothing: it has no trunk that sees both sides with a head for one of its streams of ids "
            "that have a mask token"
        )
    if stream is None:
        if len(can) > 1:
            raise ConfigError(f"stream: say which of {sorted(map(str, can))} to fill in")
        stream = next(iter(can))
    if stream not in can:
        raise ConfigError(f"stream: {stream!r} cannot be filled in{did_you_mean(stream, map(str, can))}")
    return stream, can[stream]


@torch.inference_mode()
def fill(
    model: Model, items: Any, length: int | None, stream: str | None, given: dict[str, Any] | None, how: Unmasking
) -> list[Drawn]:
    """See `sevenfold.assembly.generation.fill`."""
    stream, head = fillable(model, stream)
    modality, place = model.modalities[stream], model.config.heads[head].trunk
    known = [other for other in reads(model, place) if other != stream]
    for other in given or {}:
        if other not in known:
            raise ConfigError(f"given: trunk {place!r} does not read {other!r}{did_you_mean(other, known)}")
    if items is None and modality.tokenizer.layout() is None and length is None:
        raise ConfigError("fill: give an item with hidden tokens (<mask>), or the length of one to fill in from nothing")
    if items is not None and length is not None:
        raise ConfigError("length: is for items filled in from nothing: leave it out, or the item")
    several = list(items) if isinstance(items, list | tuple) and not _ids(items) else [items]
    raws = {name: list(raw) if isinstance(raw, list | tuple) else [raw] for name, raw in (given or {}).items()}
    rows = max(len(several), *(len(raw) for raw in raws.values()), 1)
    raws = {name: spread(raw, rows, name) for name, raw in raws.items()}
    tokens = [partly(modality, item, length) for item in spread(several, rows, "items")]
    reach = model.trunks[place].position.reach
    for one in tokens:
        if reach is not None and not model.trunks[place].config.index and one.coords.max(initial=0) >= reach:
            raise ConfigError(f"fill: {len(one.values)} tokens, and positions reach {reach}: shorten the item")
    pairs = [(row, sample) for row in range(rows) for sample in range(how.count)]
    batch = collate([{stream: tokens[row]} for row, _ in pairs])
    if raws:
        batch |= model.tokenize([{name: raw[row] for name, raw in raws.items()} for row, _ in pairs])
    batch = {name: one.to(model.device) for name, one in batch.items()}
    was = model.training
    model.eval()
    try:
        ids, logs = _filled(model, stream, head, batch, pairs, how)
    finally:
        model.train(was)
    found = []
    for (row, _), filled, log in zip(pairs, ids.cpu().numpy(), logs.cpu()):
        one = tokens[row]
        hidden = one.values == modality.tokenizer.specials["mask"]
        filled, log = filled[: len(hidden)], log[: len(hidden)]
        layout = modality.tokenizer.layout() is not None
        raw = modality.raw(filled, one.coords if layout else None)
        found.append(Drawn(raw, filled[hidden].tolist(), log[torch.from_numpy(hidden)].tolist(), "end"))
    return found


def _filled(
    model: Model, stream: str, head: str, batch: Batch, pairs: Sequence[tuple[int, int]], how: Unmasking
) -> tuple[Tensor, Tensor]:
    """Ids [b n] with nothing hidden any more, and the log-probability of each when it was put in."""
    place, specials = model.config.heads[head].trunk, model.modalities[stream].tokenizer.specials
    trunk, device, mask = model.trunks[place], model.device, specials["mask"]
    away = torch.tensor(sorted(specials.values()), device=device)
    ids, chances = batch[stream].values, [torch_generator("fill", how.seed, *pair) for pair in pairs]
    given = {name: one for name, one in batch.items() if name != stream}
    apart = all(stream not in reads(model, name) for name in trunk.config.inputs if name in model.trunks)
    earlier = model.earlier(given, place) if apart else {}
    hidden = ids == mask
    if batch[stream].valid is not None:
        hidden = hidden & batch[stream].valid
    every, left, logs = hidden.sum(1), hidden.sum(1), torch.zeros(ids.shape, device=device)
    for step in range(1, how.steps + 1):
        share = step / how.steps
        seen = {**given, stream: batch[stream]._replace(values=ids)}
        x = trunk(seen, earlier if apart else model.earlier(seen, place)).of(stream).x[hidden]
        logits = wide(model.head(head, x)).index_fill(-1, away, float("-inf"))
        uniform = torch.stack([torch.rand(3, ids.shape[1], dtype=torch.float64, generator=one) for one in chances])
        uniform = uniform.to(device)
        new = how.choose(logits, None if how.greedy else uniform[:, 0][hidden])
        if bool((new < 0).any()):
            raise CheckpointError("the model gives numbers that are not finite, so nothing can be filled in by it")
        surely = torch.full(ids.shape, float("-inf"), dtype=torch.float64, device=device)
        surely[hidden] = logits.log_softmax(-1).gather(1, new[:, None])[:, 0].double()
        gumbel = -torch.log(-torch.log(uniform[:, 1].clamp(min=1e-300)))
        first = ORDERS[how.order](surely + how.noise * (1 - share) * gumbel, uniform[:, 2])
        after = (every * SCHEDULES[how.schedule](share) + 1e-9).floor().long()
        after = torch.minimum(after, left - 1).clamp(min=0)
        rank = first.masked_fill(~hidden, float("-inf")).argsort(1, descending=True, stable=True).argsort(1)
        now = hidden & (rank < (left - after)[:, None])
        guess = torch.zeros_like(ids)
        guess[hidden] = new
        ids, logs = torch.where(now, guess, ids), torch.where(now, surely.to(logs.dtype), logs)
        hidden, left = hidden & ~now, after
        if not int(left.sum()):
            break
    return ids, logs


def _ids(items: Any) -> bool:
    """Whether these are the ids of one item."""
    return len(items) > 0 and all(isinstance(id, int | np.integer) and not isinstance(id, bool) for id in items)


def partly(modality: Modality, item: Any, length: int | None) -> Tokens:
    """The tokens of an item some of which are hidden: a text with `<mask>`, ids, or nothing (all of it is hidden)."""
    tokenizer = modality.tokenizer
    mask, grid = tokenizer.specials["mask"], tokenizer.layout()
    if item is None:
        ids = np.full(length or len(grid if grid is not None else ()), mask, np.int64)
    elif isinstance(item, str):
        ids = _spelled(modality, item)
    else:
        ids = np.asarray(item)
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer) or not ((ids >= 0) & (ids < tokenizer.size)).all():
            raise DataError(f"fill: an item is a text with {MASK}, or ids from 0 to {(tokenizer.size or 1) - 1}")
        ids = ids.astype(np.int64)
    if grid is not None:
        if len(ids) != len(grid):
            raise DataError(f"fill: an item of this stream has {len(grid)} tokens, not {len(ids)}")
        return Tokens(ids, grid)
    tokens = Tokens(ids, np.arange(len(ids))[:, None])
    if modality.config.ends and not (isinstance(item, np.ndarray | list | tuple)):
        tokens = modality.ended(tokens)
    if not (tokens.values == mask).any():
        raise DataError(f"fill: nothing is hidden in the item: write {MASK} for each token to fill in")
    return tokens


def _spelled(modality: Modality, text: str) -> np.ndarray:
    """A text with `<mask>` as ids: what stands between is encoded by itself."""
    mask, ids = modality.tokenizer.specials["mask"], []
    for place, piece in enumerate(text.split(MASK)):
        if place:
            ids.append(np.array([mask], np.int64))
        if piece:
            try:
                ids.append(modality.tokenizer.encode(modality.check(piece)).values.astype(np.int64))
            except ValueError as error:
                raise DataError(f"fill: {error}") from None
    return np.concatenate(ids) if ids else np.zeros(0, np.int64)
