"""What stands before the first drawn token: prompts, given streams, earlier trunks; and which streams can be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sevenfold.assembly.pieces import moved, reading_order, streams_in
from sevenfold.core.errors import ConfigError, DataError, did_you_mean
from sevenfold.core.types import Batch, Hidden, Stream, Tokens
from sevenfold.data.collate import collate
from sevenfold.modality import Modality

if TYPE_CHECKING:
    from sevenfold.assembly.model import Model

NEVER = ("pad", "bos", "mask", "unk", "place")
"""Special tokens that are never drawn."""


def drawables(model: Model) -> dict[str, str]:
    """stream → head, of those that a causal trunk can draw."""
    return {stream: head for stream, head in heads_of_ids(model) if _trunk_of(model, head).mask.causal}


def heads_of_ids(model: Model) -> list[tuple[str, str]]:
    """(stream, head) of heads that give the ids of a stream, token by token, which their trunk reads."""
    return [
        (head.stream, name)
        for name, head in model.config.heads.items()
        if head.stream is not None
        and head.pool == "none"
        and head.stream in _trunk_of(model, name).inputs
        and model.modalities[head.stream].tokenizer.size is not None
    ]


def _trunk_of(model: Model, head: str) -> Any:
    return model.config.trunks[model.config.heads[head].trunk]


def drawable(model: Model, stream: str | None) -> tuple[str, str]:
    """(stream, head) that a causal trunk can draw."""
    nothing = "draws nothing: it has no causal trunk with a head for one of its streams of ids"
    return one_of(drawables(model), stream, nothing, "draw", "drawn")


def one_of(can: dict[str, str], stream: str | None, nothing: str, do: str, done: str) -> tuple[str, str]:
    """The stream that is meant, with its head; ConfigError where there is none, or where nobody said which."""
    if not can:
        raise ConfigError(f"this model {nothing}")
    if stream is None:
        if len(can) > 1:
            raise ConfigError(f"stream: say which of {sorted(can)} to {do}")
        stream = next(iter(can))
    if stream not in can:
        raise ConfigError(f"stream: {stream!r} cannot be {done}{did_you_mean(stream, can)}")
    return stream, can[stream]


def spread(items: list[Any], rows: int, name: str) -> list[Any]:
    if len(items) == 1:
        return items * rows
    if len(items) != rows:
        raise ConfigError(f"{name}: {len(items)} items where {rows} are needed (or one for all)")
    return items


def given_rows(
    model: Model, trunk: str, stream: str, items: list[Any], given: Mapping[str, Any] | None, name: str
) -> tuple[list[Any], dict[str, list[Any]]]:
    """(items of a stream, the given streams), as many of each: single ones are for all. ConfigError for streams that the
    trunk does not read, and for numbers that do not fit."""
    known = [other for other in reads(model, trunk) if other != stream]
    for other in given or {}:
        if other not in known:
            raise ConfigError(f"given: trunk {trunk!r} does not read {other!r}{did_you_mean(other, known)}")
    raws = {other: list(raw) if isinstance(raw, list | tuple) else [raw] for other, raw in (given or {}).items()}
    rows = max([len(items), *(len(several) for several in raws.values())])
    return spread(items, rows, name), {other: spread(several, rows, other) for other, several in raws.items()}


def front(modality: Modality) -> list[int]:
    """The ids that stand before an item's own."""
    return modality.around()[0]


def end(modality: Modality) -> int | None:
    """The id that ends an item when it is drawn; None: items have one length, or no end."""
    if not modality.config.ends and modality.tokenizer.layout() is not None:
        return None
    return modality.tokenizer.specials.get("eos")


def never(modality: Modality) -> list[int]:
    """The ids that are never drawn: special ones, and those that stand for nothing."""
    last, tokenizer = end(modality), modality.tokenizer
    away = {id for name, id in tokenizer.specials.items() if name in (*NEVER, "eos")}
    spelled, size = tokenizer.spelled(), tokenizer.size
    if spelled is not None and size is not None:
        away |= set(range(spelled, size))
    return sorted(away - {last})


def begin(modality: Modality, prompt: Any) -> np.ndarray:
    """The ids [n] that an item begins with: those in front, and the prompt's."""
    return np.concatenate([np.array(front(modality), np.int64), encoded(modality, prompt)])


def encoded(modality: Modality, prompt: Any) -> np.ndarray:
    """The ids [n] of a prompt; none of None and of an empty text."""
    if prompt is None or (isinstance(prompt, str) and not prompt):
        return np.zeros(0, np.int64)
    if modality.tokenizer.layout() is not None:
        raise ConfigError("prompt: items of this stream have a fixed size, so they cannot be continued")
    try:
        return modality.tokenizer.encode(modality.check(prompt)).values.astype(np.int64)
    except ValueError as error:
        raise DataError(f"prompt: {error}") from None


def together(rows: Sequence[np.ndarray]) -> Stream | None:
    """Ids of several rows as a stream along one axis, padded behind; None if there are none."""
    if not any(len(row) for row in rows):
        return None
    return collate([{"x": Tokens(row, np.arange(len(row))[:, None])} for row in rows])["x"]


def room(reach: int | None, begun: int, length: int | None, usual: int) -> int:
    """How many tokens an item may get behind `begun` ones: `length`, or as many of `usual` as positions reach.

    Raises ConfigError where they do not reach.
    """
    if reach is None:
        return length or usual
    fit = reach - begun
    if fit < 1:
        raise ConfigError(
            f"prompt: {begun} tokens, and positions reach {reach}: at most {reach - 1} fit, with one to draw: shorten it"
        )
    if length is not None and length > fit:
        raise ConfigError(
            f"length: behind {begun} tokens at most {fit} fit, as positions reach {reach}; not {length}: "
            "shorten the prompt or the length"
        )
    return length or min(usual, fit)


def twice(hidden: Hidden) -> Hidden:
    """The rows, and the same rows again for the unguided half."""
    both = hidden.each(lambda part: torch.cat([part, part]))
    return Hidden(both.x, both.coords, both.valid, both.segments, hidden.spans, places=both.places)


def doubled(hidden: Hidden, guided: bool) -> Hidden:
    """A given stream: there for the guided half, absent for the other."""
    if not guided:
        return hidden
    valid = (
        torch.ones(hidden.x.shape[:2], dtype=torch.bool, device=hidden.x.device)
        if hidden.valid is None
        else hidden.valid
    )
    return twice(hidden)._replace(valid=torch.cat([valid, torch.zeros_like(valid)]))


def left(hidden: Hidden) -> Hidden:
    """Each row's tokens as they are read, padding in front of them, so that its last token is its newest."""
    if hidden.valid is None and hidden.places is None:
        return hidden
    return moved(hidden, reading_order(hidden, padding_first=True))


def reads(model: Model, trunk: str) -> list[str]:
    """The streams that reach a trunk, directly or through earlier trunks."""
    found: list[str] = []
    config = model.config.trunks[trunk]
    for name in (*config.inputs, *(given for given in (config.cross_attends, config.condition) if given)):
        found += reads(model, name) if name in model.trunks else [name]
    return list(dict.fromkeys(found))


def conditions(model: Model, trunk: str, batch: Batch, guided: bool) -> tuple[list[Hidden], Hidden | None]:
    """What stands before the drawn stream: the given streams and the earlier trunks that read them, embedded, and the
    memory of a trunk that reads one by cross-attention."""
    config, done = model.config.trunks[trunk], model.earlier(batch, trunk)
    direct = [name for name in batch if name in config.inputs]
    through = [name for name in config.inputs if name in done]
    as_named = [name for name in config.inputs if name in batch or name in done]
    order = as_named if [name for name in as_named if name in direct] == direct else [*through, *direct]
    into = model.trunks[trunk]
    pieces = [doubled(into.embed(name, batch[name] if name in direct else done[name]), guided) for name in order]
    memory = done.get(config.cross_attends or "")
    return pieces, None if memory is None else doubled(memory, guided)


def prefix(mask: Any, hidden: Hidden, stream: str) -> Tensor | None:
    """[b]: how many places of the joined tokens (padding in front, see `left`) see each other in both directions."""
    first = next(iter(streams_in(hidden)), stream)
    if not mask.prefix or first == stream:
        return None
    stop, n = (hidden.spans or {})[first][1], hidden.x.shape[1]
    if hidden.valid is None:
        return torch.full((len(hidden.x),), stop, device=hidden.x.device)
    return n - hidden.valid[:, stop:].sum(1)
