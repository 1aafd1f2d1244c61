"""Drawing a stream from a model: token by token from a causal trunk, by beams, guessing ahead; filling in what is hidden
where a trunk sees both sides.

    prompt, given streams -> Request -> Going (the trunk and its state) -> rounds of new ids -> rows -> raw items

There is one loop (`loop`); how a round comes about (`rounds`, `speculative`) and what a row makes of it (`row`, `told`)
stand apart. The settings are in `settings` and `choice`. Who uses it: `model.generate`, `.draw`, `.stream`, `.fill`,
and `sevenfold generate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sevenfold.assembly.generation import unmasking
from sevenfold.assembly.generation.loop import best, pieces, rows_of
from sevenfold.assembly.generation.request import asked
from sevenfold.assembly.generation.row import Drawn, Piece
from sevenfold.assembly.generation.settings import Settings, Unmasking
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode

if TYPE_CHECKING:
    from sevenfold.assembly.model import Model

__all__ = ["Drawn", "Piece", "Settings", "Unmasking", "draw", "fill", "stream"]

Given = dict[str, Any]
"""Other streams: name → a list of raw items, one for each prompt, or one item for all."""


def draw(
    model: Model,
    prompt: Any = None,
    *,
    stream: str | None = None,
    given: Given | None = None,
    draft: Model | None = None,
    logprobs: bool = True,
    **settings: Any,
) -> list[Drawn]:
    """Items of one stream with their ids and log-probabilities: `count` for the first prompt, for the second, …

    prompt    how each item begins: one raw item, or a list of them; only for streams of free length
    stream    which one (by default the only one that can be drawn)
    given     other streams, name → a list of raw items, one each (or one item for all)
    draft     a small model of the same vocabulary, which guesses ahead: faster, and distributed as without it
    logprobs  whether anybody asks for them
    settings  the fields of `Settings`

    Raises ConfigError for settings out of range, a model that cannot draw the stream, and prompts that do not fit.
    """
    how = decode(Settings, settings)
    request = asked(model, prompt, stream, given, how)
    if how.beams > 1:
        if draft is not None:
            raise ConfigError("beams: guessing ahead is for drawing: leave out draft, or beams")
        return best(request, how)
    rows = rows_of(request, how, False)
    for _ in pieces(request, rows, draft, how, logprobs):
        pass
    return [row.drawn() for row in rows]


def stream(
    model: Model,
    prompt: Any = None,
    *,
    stream: str | None = None,
    given: Given | None = None,
    draft: Model | None = None,
    **settings: Any,
) -> Iterator[Piece]:
    """What `draw` gives with the same settings, piece by piece as it is drawn."""
    how = decode(Settings, settings)
    if how.beams > 1:
        raise ConfigError("beams: nothing is certain before the search ends: leave out beams, or do not stream")
    request = asked(model, prompt, stream, given, how)
    return pieces(request, rows_of(request, how, True), draft, how, True)


def fill(
    model: Model,
    items: Any = None,
    *,
    length: int | None = None,
    stream: str | None = None,
    given: Given | None = None,
    **settings: Any,
) -> list[Drawn]:
    """Items of one stream with what was hidden in them filled in, by a trunk that sees both sides.

    items     one, or a list: a text in which each `<mask>` is a hidden token, or ids, the mask id among them; None: an
              item of which everything is hidden, of `length` tokens (or as many as all items have)
    stream    which one (by default the only one that can be filled in)
    given     other streams, as in `draw`
    settings  the fields of `Unmasking`

    The ids and log-probabilities are those of the hidden tokens, each when it was put in. Raises ConfigError and DataError
    for settings out of range, a model that cannot do it, and items in which nothing is hidden.
    """
    return unmasking.fill(model, items, length, stream, given, decode(Unmasking, settings))
