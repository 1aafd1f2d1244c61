"""A causal trunk in the middle of a sequence: what it has read is its state, what may come next are its logits.

    logits <- l_0 + w (l_c - l_0)      classifier-free guidance, l_c with the given streams, l_0 without them

w = 1 is no guidance, w = 0 ignores what is given (Ho and Salimans 2022, arXiv:2207.12598, whose w is this minus 1). All
ways of drawing (token by token, beams, guessing ahead) go through here.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from sevenfold.assembly.generation.request import Request
from sevenfold.assembly.generation.settings import Settings
from sevenfold.assembly.pieces import joined
from sevenfold.assembly.prompt import conditions, left, prefix, together, twice
from sevenfold.assembly.stepping import TrunkState
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Hidden, Stream, wide


class Going:
    """Rows of one request, one per prompt until `take`."""

    def __init__(self, request: Request, settings: Settings):
        self.request, self.settings = request, settings
        self.guided = settings.guidance != 1 and bool(request.given)
        self.device = request.model.device
        self.rewinds, self.log = True, torch.zeros(len(request.begun), 0, dtype=torch.long, device=self.device)
        self.marked: tuple[TrunkState, int] | None = None
        self.begun = self._begin()
        """[b v]: logits of the first token."""

    def _begin(self) -> Tensor:
        """Read what stands in front → logits [b v] of the first token."""
        request, trunk = self.request, self.request.trunk
        hidden, self.memory, told = self._front()
        first = None
        if hidden is not None:
            first = prefix(trunk.config.mask, hidden, request.stream)
            hidden = left(hidden)
        else:
            assert trunk.tokens is not None
            like = Hidden(trunk.tokens, torch.zeros(1, 1, len(trunk.axes), dtype=torch.long, device=self.device))
            hidden = joined(trunk.extras(len(request.begun) * (2 if self.guided else 1), like))
        self._number(hidden)
        self.coords, self.fed = self._places(), 0
        longest = hidden.x.shape[1] + max(self.request.limits)
        self.state: TrunkState = trunk.start(len(hidden.x), longest, told, self.settings.cache)
        hidden, self.state = trunk.step(hidden, self.state, self.memory, first)
        return self._logits(hidden.x[:, -1])

    def _front(self) -> tuple[Hidden | None, Hidden | None, Tensor | None]:
        """What stands in front (None: nothing), the memory of a trunk that reads one, and its condition."""
        request, (model, trunk, rows) = self.request, (self.request.model, self.request.trunk, len(self.request.begun))
        items = [{name: raws[row] for name, raws in request.given.items()} for row in range(rows)]
        batch = (
            {name: tokens.to(self.device) for name, tokens in model.tokenize(items).items()} if request.given else {}
        )
        begun = together(request.begun)
        if trunk.tokens is None and begun is None and not request.given:
            raise self._nothing()
        pieces, memory = conditions(model, request.place, batch, self.guided)
        told = trunk.condition(batch, rows)
        if told is not None and self.guided:
            told = torch.cat([told, cast(Tensor, trunk.condition({}, rows))])
        if begun is not None:
            tokens = trunk.embed(request.stream, begun.to(self.device))
            pieces.append(twice(tokens) if self.guided else tokens)
        if not pieces:
            if trunk.tokens is None:
                raise self._nothing()
            return None, memory, told
        hidden = trunk.join(pieces)
        if hidden.valid is not None and not bool(hidden.valid.any(1).all()):
            raise self._nothing()
        return hidden, memory, told

    def _nothing(self) -> ConfigError:
        stream = self.request.stream
        return ConfigError(
            f"prompt: to draw {stream!r} from nothing, the trunk needs class_token (its start) or the stream needs ends: "
            "begin each item with at least one token"
        )

    def _places(self) -> Tensor:
        """Coordinates [b n axes] of all tokens that may be drawn; rows that are done stay within reach."""
        request = self.request
        if request.grid is not None:
            return torch.as_tensor(request.grid, device=self.device).expand(len(request.begun), -1, -1)
        begun = torch.tensor([len(ids) for ids in request.begun])
        places = begun[:, None] + torch.arange(max(request.limits))
        reach = request.trunk.position.reach
        return (places if reach is None else places.clamp(max=reach - 1))[..., None].to(self.device)

    def _number(self, hidden: Hidden) -> None:
        """Where joined tokens are numbered, positions reach as far whatever the tokens are of."""
        request, reach = self.request, self.request.trunk.position.reach
        if not request.trunk.config.index or reach is None:
            return
        seen = hidden.x.shape[1] if hidden.valid is None else int(hidden.valid.sum(1).max())
        fit, wanted = max(reach - seen, 0), max(request.limits)
        if request.fixed and wanted > fit or not fit:
            raise ConfigError(
                f"length: behind {seen} tokens at most {fit} fit, as positions reach {reach}; not {wanted}: "
                "shorten what is given, or the length"
            )
        self.request = request._replace(limits=[min(limit, fit) for limit in request.limits])

    def _logits(self, x: Tensor) -> Tensor:
        """x [… d] → [… v] in float32 (float64 where the model is)."""
        logits = wide(self.request.model.head(self.request.head, x))
        if not self.guided:
            return logits
        with_given, without = logits.chunk(2)
        return without + self.settings.guidance * (with_given - without)

    def feed(self, ids: Tensor) -> Tensor:
        """The next tokens [b k] of every row → logits [b v] of what comes behind the last."""
        return self._logits(self._read(ids)[:, -1])

    def feed_all(self, ids: Tensor) -> Tensor:
        """The next tokens [b k] of every row → logits [b k v] of what comes behind each."""
        return self._logits(self._read(ids))

    def _read(self, ids: Tensor) -> Tensor:
        """ids [b k] → x [b k d], twice as many rows where guided."""
        new = self.fed + ids.shape[1]
        request = self.request
        hidden = request.trunk.embed(request.stream, Stream(ids, self.coords[:, self.fed : new]))
        hidden = twice(hidden) if self.guided else hidden
        hidden, self.state = request.trunk.step(hidden, self.state, self.memory)
        self.fed = new
        return hidden.x

    def take(self, index: Tensor) -> None:
        """Go on with the rows `index` [k], in that order; a row may be taken several times."""
        rows, self.coords = len(self.coords), self.coords[index]
        if self.guided:
            index = torch.cat([index, index + rows])
        self.state = self.state.rows(index)
        if self.memory is not None:
            self.memory = self.memory.each(lambda part: part[index])

    # Taking tokens back
    def feed_ahead(self, ids: Tensor, fresh: bool = True) -> Tensor:
        """As `feed_all`, but `take_back` can undo it: a copy of the state is kept where the mixers cannot rewind. Not
        `fresh`: it is undone together with what was fed before."""
        if fresh:
            self.marked = None if self.rewinds else (self.state.copy(), self.fed)
        self.log = torch.cat([self.log, ids], 1)
        return self.feed_all(ids)

    def take_back(self, count: int) -> None:
        """As if the last `count` tokens had not been fed ahead. The first time that mixers cannot rewind (a ring of keys
        is full, say), everything is read again."""
        if not count:
            return
        self.log = self.log[:, :-count]
        before = self.state.rewind(count) if self.rewinds else None
        if before is not None:
            self.state, self.fed = before, self.fed - count
            return
        self.rewinds = False
        if self.marked is None:
            self._begin()
        else:
            self.state, self.fed = self.marked
        self.marked = None
        if self.fed < self.log.shape[1]:
            self._read(self.log[:, self.fed :])
