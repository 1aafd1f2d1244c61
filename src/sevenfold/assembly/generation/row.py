"""One item as it is drawn: its ids, where and why it stops, and what it is in the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sevenfold.assembly.generation.request import Request
from sevenfold.assembly.generation.told import Told


class Drawn(NamedTuple):
    """An item that was drawn.

    raw       the raw item, prompt included, cut before a stop string
    ids       the ids drawn, the end token and those of a stop string included
    logprobs  the log-probability of each under the model's own distribution, before anything narrows it
    stopped   why it ended: "end" (its end token), "stop" (a stop string), "length", or "time"
    accepted  the share of the tokens guessed ahead that were kept; None: nothing was guessed
    """

    raw: Any
    ids: list[int]
    logprobs: list[float]
    stopped: str
    accepted: float | None = None

    @property
    def logprob(self) -> float:
        """The sum over all tokens."""
        return sum(self.logprobs)


class Piece(NamedTuple):
    """What one round brought to one row: `text` is what can be shown of it (all pieces of a row are its text behind the
    prompt), `ids` and `logprobs` those drawn; `row` counts prompts and, within each, samples; `stopped` (None while it goes
    on) and `accepted` (so far) are as in Drawn."""

    text: str
    ids: list[int]
    logprobs: list[float]
    row: int
    stopped: str | None = None
    accepted: float | None = None


class Row:
    """Sample `sample` of prompt `place`. `told`: its text is needed while it is drawn."""

    def __init__(self, request: Request, place: int, sample: int, stop: Sequence[str], told: bool):
        self.request, self.place, self.sample = request, place, sample
        self.before, self.limit = request.begun[place], request.limits[place]
        self.told = Told(request.modality, self.before, stop) if told else None
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.stopped: str | None = None
        self.accepted: float | None = None

    def take(self, ids: Sequence[int], logprobs: Sequence[float], over: bool) -> tuple[str, int]:
        """New ids, as many as come before it stops (`over`: no more time) → (the text released, how many)."""
        text, before = "", len(self.ids)
        for id in ids:
            self.ids.append(id)
            if id == self.request.end:
                self.stopped = "end"
            elif self.told is not None:
                text += self.told.push(id)
            if self.told is not None and self.told.hit:
                self.stopped = "stop"
            elif self.stopped is None and len(self.ids) >= self.limit:
                self.stopped = "length"
            if self.stopped is not None:
                break
        taken = len(self.ids) - before
        self.logprobs += logprobs[:taken]
        if over and self.stopped is None:
            self.stopped = "time"
        if self.stopped is not None and self.told is not None:
            text += self.told.flush()
        return text, taken

    def drawn(self) -> Drawn:
        raw = item(self.request, self.before, self.ids)
        if self.told is not None and self.told.hit:
            raw = item(self.request, self.before, []) + self.told.text
        return Drawn(raw, self.ids, self.logprobs, self.stopped or "time", self.accepted)


def item(request: Request, before: np.ndarray, ids: Sequence[int]) -> Any:
    """The raw item of ids behind those that stood in front."""
    every = np.concatenate([before, np.array(ids, np.int64)])
    return request.modality.raw(every, None if request.grid is None else request.grid[: len(every)])
