"""What stands before the first drawn token: prompts, given streams, earlier trunks; and which streams can be drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sevenfold.assembly.pieces import moved, streams_in
from sevenfold.core.errors import ConfigError, DataError, did_you_mean
from sevenfold.core.types import Batch, Hidden, Stream, Tokens
from sevenfold.data.collate import collate

if TYPE_CHECKING:
    from sevenfold.assembly.model import Model


def drawable(model: Model, stream: str | None) -> tuple[str, str]:
    """(stream, head) that a causal trunk can draw."""
    can = {
        head.stream: name
        for name, head in model.config.heads.items()
        if head.stream is not None
        and head.pool == "none"
        and model.config.trunks[head.trunk].mask.causal
        and head.stream in model.config.trunks[head.trunk].inputs
        and model.modalities[head.stream].tokenizer.size is not None
    }
    if not can:
        raise ConfigError("this model draws nothing: it has no causal trunk with a head for one of its streams of ids")
    if stream is None:
        if len(can) > 1:
            raise ConfigError(f"stream: say which of {sorted(map(str, can))} to draw")
        stream = next(iter(can))
    if stream not in can:
        raise ConfigError(f"stream: {stream!r} cannot be drawn{did_you_mean(stream, map(str, can))}")
    return stream, can[stream]


def spread(items: list[Any], rows: int, name: str) -> list[Any]:
    if len(items) == 1:
        return items * rows
    if len(items) != rows:
        raise ConfigError(f"{name}: {len(items)} items where {rows} are needed (or one for all)")
    return items


def begin(modality: Any, prompts: list[Any]) -> Stream | None:
    """The tokens that each row of the stream begins with: its begin token and its prompt; None if there are none."""
    rows = []
    for prompt in prompts:
        front = modality.around()[0]
        ids = [np.array(front)] if front else []
        if prompt is not None and not (isinstance(prompt, str) and not prompt):
            if modality.tokenizer.layout() is not None:
                raise ConfigError("prompt: items of this stream have a fixed size, so they cannot be continued")
            try:
                ids.append(modality.tokenizer.encode(modality.check(prompt)).values)
            except ValueError as error:
                raise DataError(f"prompt: {error}") from None
        rows.append(np.concatenate(ids) if ids else np.zeros(0, np.int64))
    if not any(len(row) for row in rows):
        return None
    return collate([{"x": Tokens(row.astype(np.int64), np.arange(len(row))[:, None])} for row in rows])["x"]


def twice(hidden: Hidden) -> Hidden:
    """The rows, and the same rows again for the unguided half."""
    both = hidden.each(lambda part: torch.cat([part, part]))
    return Hidden(both.x, both.coords, both.valid, both.segments, hidden.spans)


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
    """Padding moved to the front of each row, so that every row's last token is its newest."""
    if hidden.valid is None:
        return hidden
    return moved(hidden, hidden.valid.byte().argsort(dim=1, stable=True))


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
