"""Guessing ahead: a small model, or a look at what was there before, proposes tokens; the large one checks them all in one
pass. What comes out is distributed exactly as if the large one had drawn token by token.

    a guess x ~ q is kept with probability min(1, p(x) / q(x));  the first that is not is drawn anew from (p - q)+ / |(p - q)+|
    if all are kept, one more comes from p                   p, q: after temperature, top-k and whatever else narrows them

Leviathan 2022, arXiv:2211.17192, algorithm 1; Chen 2023, arXiv:2302.01318; guesses by look-up: Saxena 2023 (prompt look-up),
where q is 1 at the guess. One row at a time. A mixer that cannot rewind reads what was kept once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from sevenfold.assembly.generation.choice import drawn
from sevenfold.assembly.generation.going import Going
from sevenfold.assembly.generation.request import Request
from sevenfold.assembly.generation.rounds import Round, Rules, finite, logprobs_of
from sevenfold.assembly.generation.row import Row
from sevenfold.assembly.generation.settings import Settings
from sevenfold.assembly.prompt import drawable, reads
from sevenfold.core.errors import ConfigError
from sevenfold.core.seeds import torch_generator
from sevenfold.modality import Modality

if TYPE_CHECKING:
    from sevenfold.assembly.model import Model


class Guess(NamedTuple):
    """Tokens that may come next, and the distribution [k v] that each was drawn from (None: it is 1 at the token)."""

    ids: list[int]
    shares: Tensor | None


class Guesser(Protocol):
    """What proposes tokens."""

    def guess(self, ids: list[int], most: int) -> Guess:
        """At most `most` tokens behind ids, the new ones of the row so far."""


class Lookup:
    """What followed when the last few tokens stood there before: the longest match, the latest of those."""

    def __init__(self, before: list[int], words: int):
        self.before, self.words = before, words
        self.followed: dict[tuple[int, ...], int] = {}  # tokens → the place behind them
        self.seen = 1

    def guess(self, ids: list[int], most: int) -> Guess:
        every = [*self.before, *ids]
        for place in range(self.seen, len(every)):
            for size in range(1, min(self.words, place) + 1):
                self.followed[tuple(every[place - size : place])] = place
        self.seen = max(self.seen, len(every))
        for size in range(min(self.words, len(every)), 0, -1):
            found = self.followed.get(tuple(every[-size:]))
            if found is not None:
                return Guess(every[found : found + most], None)
        return Guess([], None)


class Draft:
    """A small model that draws, by the same settings, as far as its positions reach."""

    def __init__(self, request: Request, settings: Settings, generator: torch.Generator):
        self.settings, self.generator = settings, generator
        self.going = Going(request, settings)
        self.rules = Rules(self.going, settings)
        self.read: list[int] = []

    def guess(self, ids: list[int], most: int) -> Guess:
        most = min(most, self.going.coords.shape[1] - len(ids))
        if most < 1:
            return Guess([], None)
        going, device = self.going, self.going.device
        same = next((k for k, (a, b) in enumerate(zip(self.read, ids)) if a != b), min(len(self.read), len(ids)))
        going.take_back(len(self.read) - same)
        logits = going.feed_ahead(torch.tensor([ids[same:]], device=device))[:, -1]
        self.read = list(ids)
        seen, shares, guessed = _seen(self.rules, ids), [], []
        for _ in range(most):
            shares.append(self.settings.probabilities(self.rules(logits, seen)))
            uniform = torch.rand(1, dtype=torch.float64, generator=self.generator).to(device)
            new = drawn(shares[-1], uniform)
            guessed.append(int(new))
            if len(guessed) == most or guessed[-1] == going.request.end:
                break
            if seen is not None:
                seen = seen.scatter(1, new[:, None], True)
            logits = going.feed_ahead(new[:, None], fresh=False)[:, -1]
            self.read.append(guessed[-1])
        return Guess(guessed, torch.cat(shares))


def _seen(rules: Rules, ids: list[int]) -> Tensor | None:
    """What a penalty counts as seen, [1 v], behind these new ids."""
    if rules.seen is None:
        return None
    return rules.seen.scatter(1, torch.tensor([ids], device=rules.seen.device), True)


Start = Callable[[Request, torch.Generator], Guesser]
"""Who guesses for one row, with its chances."""


def guesses(request: Request, settings: Settings, draft: Model | None) -> Start | None:
    """What the settings ask for; None: nothing is guessed."""
    if draft is not None:
        small = draft_of(request, draft)
        return lambda row, generator: Draft(small(row), settings, generator)
    if settings.lookup is None:
        return None
    words = settings.lookup
    return lambda row, _: Lookup(row.begun[0].tolist(), words)


def alone(request: Request, row: Row, start: Start, settings: Settings, logprobs: bool) -> Iterator[Round]:
    """Rounds of one row: one token at first, then at least one, at most one more than were guessed."""
    request = request.of([row.place])
    going = Going(request, settings)
    rules = Rules(going, settings)
    row.limit = going.request.limits[0]
    held, guessed = 0, 0
    generator = torch_generator("ahead", settings.seed, row.place, row.sample)
    guesser, device = start(request, generator), going.device
    ids: list[int] = []
    logits, guess = going.begun, Guess([], None)
    while True:
        new, seen = list(guess.ids), _stacked(rules, ids, guess.ids)
        shares = settings.probabilities(rules(logits, seen))  # [k+1 v]
        finite([-int(logits.isnan().any())])
        kept = _kept(shares, guess, generator)
        left = shares[kept : kept + 1]
        if kept < len(new):
            its = torch.zeros_like(left).scatter_(1, torch.tensor([[new[kept]]], device=device), 1.0)
            its = its if guess.shares is None else guess.shares[kept : kept + 1].to(device)
            rest = (left - its).clamp(min=0)
            left = rest if rest.sum() > 0 else left  # nothing is left but what rounding took
        uniform = torch.rand(1, dtype=torch.float64, generator=generator).to(device)
        new = [*new[:kept], int(drawn(left, uniform))]
        guessed, held = guessed + len(guess.ids), held + kept
        row.accepted = held / guessed if guessed else None
        logs: list[float] = []
        if logprobs:
            logs = logprobs_of(logits[: kept + 1], torch.tensor(new, device=device)).tolist()
        going.take_back(len(guess.ids) - kept)
        ids += new
        yield Round([new], [logs])
        guess = guesser.guess(ids, min(settings.ahead, row.limit - len(ids) - 1))
        logits = going.feed_ahead(torch.tensor([[ids[-1], *guess.ids]], device=device))[0]


def _stacked(rules: Rules, ids: list[int], guessed: list[int]) -> Tensor | None:
    """What is seen before each guess and behind the last, [k+1 v]."""
    seen = _seen(rules, ids)
    if seen is None:
        return None
    seen = seen.repeat(len(guessed) + 1, 1)
    for place, id in enumerate(guessed):
        seen[place + 1 :, id] = True
    return seen


def _kept(shares: Tensor, guess: Guess, generator: torch.Generator) -> int:
    """How many of the guesses are kept, in turn."""
    if not guess.ids:
        return 0
    at = torch.tensor(guess.ids, device=shares.device)[:, None]
    p = shares[:-1].gather(1, at)
    q = torch.ones_like(p) if guess.shares is None else guess.shares.to(at.device).gather(1, at)
    uniform = torch.rand(len(guess.ids), dtype=torch.float64, generator=generator).tolist()
    for place, ((mine, its), chance) in enumerate(zip(torch.cat([p, q], 1).tolist(), uniform)):
        if chance * its >= mine:
            return place
    return len(guess.ids)


def draft_of(request: Request, draft: Model) -> Callable[[Request], Request]:
    """One row's request, asked of a small model: the same ids in front; of the given streams those that it reads."""
    try:
        stream, head = drawable(draft, request.stream if request.stream in draft.modalities else None)
    except ConfigError as error:
        raise ConfigError(f"draft: {error}") from None
    same_vocabulary(request.modality, draft.modalities[stream])
    place = draft.config.heads[head].trunk
    reach, known = draft.trunks[place].position.reach, reads(draft, place)

    def small(row: Request) -> Request:
        limit, begun = row.limits[0], len(row.begun[0])
        if reach is not None and row.grid is None:
            limit = min(limit, reach - begun)
        if limit < 1:
            raise ConfigError(f"draft: its positions reach {reach}, and the prompt has {begun} tokens: shorten it")
        given = {name: raws for name, raws in row.given.items() if name in known}
        asked = row._replace(model=draft, stream=stream, head=head, place=place, given=given)
        return asked._replace(limits=[limit], fixed=row.grid is not None)

    return small


def same_vocabulary(ours: Modality, theirs: Modality) -> None:
    """ConfigError unless every id means the same to both."""
    a, b = ours.tokenizer, theirs.tokenizer
    if a.size != b.size:
        raise ConfigError(f"draft: has {b.size} ids and the model {a.size}: it needs the same tokenizer")
    if a.specials != b.specials:
        raise ConfigError("draft: has other special tokens than the model: it needs the same tokenizer")
    other = next((id for id in range(a.size or 0) if a.piece(id) != b.piece(id)), None)
    if other is not None:
        raise ConfigError(
            f"draft: id {other} is {b.piece(other)!r} to it and {a.piece(other)!r} to the model: it needs the same tokenizer"
        )
