"""The loop: rounds of new ids, handed to their rows until all of them are done. How a round comes about is elsewhere (token
by token in `rounds`, guessing ahead in `speculative`); beams, which are certain of nothing before they end, in `beams`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from sevenfold.assembly.generation.beams import search
from sevenfold.assembly.generation.going import Going
from sevenfold.assembly.generation.request import Request
from sevenfold.assembly.generation.rounds import Rules, together
from sevenfold.assembly.generation.row import Drawn, Piece, Row, item
from sevenfold.assembly.generation.settings import Settings
from sevenfold.assembly.generation.speculative import Start, alone, guesses
from sevenfold.assembly.generation.told import writes
from sevenfold.core.errors import ConfigError

if TYPE_CHECKING:
    from sevenfold.assembly.model import Model

TOGETHER = 512
"""Most rows that are drawn at once; more are drawn in turn, with the same results."""


def rows_of(request: Request, settings: Settings, told: bool) -> list[Row]:
    """`count` rows for each prompt. `told`: their text is needed while they are drawn."""
    told = (told or bool(settings.stop)) and request.grid is None and writes(request.modality)
    if settings.stop and not told:
        raise ConfigError(f"stop: strings end a text, and {request.stream!r} is none: leave it out")
    places = range(len(request.begun))
    return [Row(request, place, sample, settings.stop, told) for place in places for sample in range(settings.count)]


@contextmanager
def at_rest(*models: Model | None) -> Iterator[None]:
    """Models in evaluation mode, for a while."""
    was = [(model, model.training) for model in models if model is not None]
    for model, _ in was:
        model.eval()
    try:
        yield
    finally:
        for model, training in was:
            model.train(training)


def pieces(
    request: Request, rows: Sequence[Row], draft: Model | None, settings: Settings, logprobs: bool
) -> Iterator[Piece]:
    """Rows are drawn, and changed in place; what each round brings to a row is a piece."""
    return _pieces(request, rows, draft, guesses(request, settings, draft), settings, logprobs)


@torch.inference_mode()
def _pieces(
    request: Request,
    rows: Sequence[Row],
    draft: Model | None,
    guess: Start | None,
    settings: Settings,
    logprobs: bool,
) -> Iterator[Piece]:
    until = deadline(settings)
    size = TOGETHER if guess is None else 1
    with at_rest(request.model, draft):
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            if guess is None:
                source = together(request, some, settings, logprobs)
            else:
                source = alone(request, some[0], guess, settings, logprobs)
            for found in source:
                over = until is not None and time.monotonic() > until
                for number, (row, ids, logs) in enumerate(zip(some, *found), start):
                    if row.stopped is None:
                        text, taken = row.take(ids, logs, over)
                        yield Piece(text, ids[:taken], logs[:taken], number, row.stopped, row.accepted)
                if all(row.stopped for row in some):
                    break


def deadline(settings: Settings) -> float | None:
    return None if settings.seconds is None else time.monotonic() + settings.seconds


@torch.inference_mode()
def best(request: Request, settings: Settings) -> list[Drawn]:
    """The best `count` items of each prompt, by beam search."""
    until, found = deadline(settings), []
    size = max(1, TOGETHER // settings.beams)
    with at_rest(request.model):
        for start in range(0, len(request.begun), size):
            some = request.of(range(start, min(start + size, len(request.begun))))
            going = Going(some, settings)
            rules = Rules(going, settings)
            for before, sequences in zip(some.begun, search(going, rules, settings, until)):
                found += [
                    Drawn(item(request, before, one.ids), one.ids, one.logprobs, one.stopped) for one in sequences
                ]
    return found
