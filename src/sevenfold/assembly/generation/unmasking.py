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

from sevenfold.assembly.generation.rounds import logprobs_of
from sevenfold.assembly.generation.row import Drawn
from sevenfold.assembly.generation.settings import Unmasking
from sevenfold.assembly.prompt import given_rows, heads_of_ids, never, one_of, reads
from sevenfold.core.errors import CheckpointError, ConfigError, DataError
from sevenfold.core.seeds import torch_generator
from sevenfold.core.types import Batch, Tokens, wide
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


def fillables(model: Model) -> dict[str, str]:
    """stream → head, of those with a mask token that a trunk which sees both sides can fill in."""
    trunks, modalities = model.config.trunks, model.modalities
    return {
        stream: head
        for stream, head in heads_of_ids(model)
        if not trunks[model.config.heads[head].trunk].mask.causal and "mask" in modalities[stream].tokenizer.specials
    }


def fillable(model: Model, stream: str | None) -> tuple[str, str]:
    """(stream, head) that a trunk which sees both sides can fill in."""
    nothing = (
        "fills in nothing: it has no trunk that sees both sides with a head for one of its streams of ids with a mask"
    )
    return one_of(fillables(model), stream, nothing, "fill in", "filled in")


@torch.inference_mode()
def fill(
    model: Model, items: Any, length: int | None, stream: str | None, given: dict[str, Any] | None, how: Unmasking
) -> list[Drawn]:
    """See `sevenfold.assembly.generation.fill`."""
    stream, head = fillable(model, stream)
    modality, place = model.modalities[stream], model.config.heads[head].trunk
    if items is None and modality.tokenizer.layout() is None and length is None:
        raise ConfigError(
            "fill: give an item with hidden tokens (<mask>), or the length of one to fill in from nothing"
        )
    if items is not None and length is not None:
        raise ConfigError("length: is for items filled in from nothing: leave it out, or the item")
    several = list(items) if isinstance(items, list | tuple) and not _ids(items) else [items]
    several, raws = given_rows(model, place, stream, several, given, "items")
    tokens = [partly(modality, item, length) for item in several]
    reach = model.trunks[place].position.reach
    for one in tokens:
        if reach is not None and not model.trunks[place].config.index and one.coords.max(initial=0) >= reach:
            raise ConfigError(f"fill: {len(one.values)} tokens, and positions reach {reach}: shorten the item")
    pairs = [(row, sample) for row in range(len(several)) for sample in range(how.count)]
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
    trunk, device = model.trunks[place], model.device
    away = torch.tensor(never(model.modalities[stream]) + sorted(specials.values()), device=device)
    given = {name: one for name, one in batch.items() if name != stream}
    apart = all(stream not in reads(model, name) for name in given_trunks(model, place))
    earlier = model.earlier(given, place) if apart else {}
    ids = batch[stream].values
    hidden = ids == specials["mask"]
    valid = batch[stream].valid
    hidden = hidden if valid is None else hidden & valid
    every, left, logs = hidden.sum(1), hidden.sum(1), torch.zeros(ids.shape, dtype=torch.float64, device=device)
    for step in range(1, how.steps + 1):
        share = step / how.steps
        seen = {**given, stream: batch[stream]._replace(values=ids)}
        x = trunk(seen, earlier if apart else model.earlier(seen, place)).of(stream).x
        logits = wide(model.head(head, x[hidden])).index_fill(-1, away, float("-inf"))
        chance = _chance(how.seed, pairs, step, ids.shape[1]).to(device)
        guess, surely = torch.zeros_like(ids), torch.full(ids.shape, float("-inf"), dtype=torch.float64, device=device)
        guess[hidden] = how.choose(logits, None if how.greedy else chance[..., 0][hidden])
        if bool((guess < 0).any()):
            raise CheckpointError("the model gives numbers that are not finite, so nothing can be filled in by it")
        surely[hidden] = logprobs_of(logits, guess[hidden]).double()
        first = ORDERS[how.order](surely + how.noise * (1 - share) * _gumbel(chance[..., 1]), chance[..., 2])
        after = (every * SCHEDULES[how.schedule](share) + 1e-9).floor().long()
        after = torch.minimum(after, left - 1).clamp(min=0)
        rank = first.masked_fill(~hidden, float("-inf")).argsort(dim=1, descending=True, stable=True).argsort(1)
        now = hidden & (rank < (left - after)[:, None])
        ids, logs = torch.where(now, guess, ids), torch.where(now, surely, logs)
        hidden, left = hidden & ~now, after
        if not int(left.sum()):
            break
    return ids, logs


def given_trunks(model: Model, place: str) -> list[str]:
    """The earlier trunks that a trunk reads."""
    config = model.config.trunks[place]
    return [name for name in (*config.inputs, config.cross_attends or "") if name in model.trunks]


def _chance(seed: int, pairs: Sequence[tuple[int, int]], step: int, n: int) -> Tensor:
    """Uniform numbers [b n 3] of a step: those of a row's tokens do not depend on the other rows, nor on padding."""
    rows = [
        torch.rand(n, 3, dtype=torch.float64, generator=torch_generator("fill", seed, *pair, step)) for pair in pairs
    ]
    return torch.stack(rows)


def _gumbel(uniform: Tensor) -> Tensor:
    return -torch.log(-torch.log(uniform.clamp(min=1e-300)))


def _ids(items: Any) -> bool:
    """Whether these are the ids of one item."""
    return len(items) > 0 and all(isinstance(id, int | np.integer) and not isinstance(id, bool) for id in items)


def partly(modality: Modality, item: Any, length: int | None) -> Tokens:
    """The tokens of an item some of which are hidden: a text with `<mask>`, ids, or nothing (all of it is hidden)."""
    tokenizer = modality.tokenizer
    mask, grid, size = tokenizer.specials["mask"], tokenizer.layout(), tokenizer.size or 0
    if item is None:
        ids = np.full(length or len(grid if grid is not None else ()), mask, np.int64)
    elif isinstance(item, str):
        ids = _spelled(modality, item)
    else:
        ids = np.asarray(item)
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer) or not ((ids >= 0) & (ids < size)).all():
            raise DataError(f"fill: an item is a text with {MASK}, or ids from 0 to {size - 1}")
        ids = ids.astype(np.int64)
    if grid is not None:
        if len(ids) != len(grid):
            raise DataError(f"fill: an item of this stream has {len(grid)} tokens, not {len(ids)}")
        return Tokens(ids, grid)
    tokens = Tokens(ids, np.arange(len(ids))[:, None])
    if any(modality.around()) and (item is None or isinstance(item, str)):
        tokens = modality.ended(tokens)
    if not (tokens.values == mask).any():
        raise DataError(
            f"fill: nothing is hidden in the item: write {MASK} (as an id: {mask}) for each token to fill in"
        )
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
