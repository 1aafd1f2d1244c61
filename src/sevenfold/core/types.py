"""The records that walk through the house. All are NamedTuples, so they are pytrees: they cross compile, loader and
FSDP boundaries without registration.

Letters in shapes, here and everywhere: b batch, n tokens, m tokens attended to, c coordinate axes, p features of a
continuous token, d model width, h heads, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Tokens(NamedTuple):
    """One raw item after its tokenizer: `values` [n] ids (int64) or [n p] vectors (float32), `coords` [n c] (whole
    numbers, or reals where tokens stand in space), the number of the document each token is from, `segments` [n]
    (int64), where several are packed into one item, and `frames` [n 4 3] (float32) where tokens have one (see Hidden)."""

    values: np.ndarray
    coords: np.ndarray
    segments: np.ndarray | None = None
    frames: np.ndarray | None = None

    def slice(self, start: int, stop: int | None) -> Tokens:
        """Tokens start…stop."""
        return Tokens._make(None if part is None else part[start:stop] for part in self)


class Stream(NamedTuple):
    """One modality of a batch.

    values    [b n] ids, or [b n p] vectors
    coords    [b n c]: all that a position scheme may look at; c = 1 text, 2 image, 3 points, 0 a set
    valid     [b n] bool, False at padding; None: all are valid
    segments  [b n] int, tokens mix only within one segment (packed documents); None: one segment
    frames    [b n 4 3] a frame per token (see Hidden); None: tokens have none
    """

    values: Tensor
    coords: Tensor
    valid: Tensor | None = None
    segments: Tensor | None = None
    frames: Tensor | None = None

    @property
    def discrete(self) -> bool:
        return not self.values.is_floating_point()

    def take(self, index: Tensor) -> Stream:
        """The tokens at `index` [b k], in that order."""
        return self.each(lambda part: take(part, index))

    def slice(self, start: int, stop: int | None) -> Stream:
        """Tokens start…stop of every row."""
        return self.each(lambda part: part[:, start:stop])

    def rows(self, index: Any) -> Stream:
        """Rows of the batch."""
        return self.each(lambda part: part[index])

    def to(self, device: Any) -> Stream:
        return self.each(lambda part: part.to(device, non_blocking=True))

    def each(self, change: Callable[[Tensor], Tensor]) -> Stream:
        """What `change` makes of each tensor that is there."""
        return Stream._make(None if part is None else change(part) for part in self)


Batch = dict[str, Stream]
"""Named streams of one batch."""


class Mask(NamedTuple):
    """Who may attend to whom, as a description. Each mixer turns it into what its kernel wants, late.

    causal  later tokens are hidden
    window  only tokens at most window-1 places away are seen (on both sides unless causal)
    prefix  [b] int: the first `prefix` tokens of a row see each other even when causal
    Padding (`valid`) and packing (`segments`) are read from the Hidden that comes with it.
    """

    causal: bool = False
    window: int | None = None
    prefix: Tensor | None = None


Bias = Callable[[Tensor, Tensor, int], Tensor]
"""(query coords [b n c], key coords [b m c], heads) → [b h n m], added to attention scores."""


class Hidden(NamedTuple):
    """Embedded tokens on their way through a trunk.

    x          [b n d]
    coords     [b n c]
    valid      [b n] bool or None
    segments   [b n] int or None
    spans      stream or trunk name → (start, stop) of its tokens
    condition  [b d'] what adaptive parts are conditioned on (time, class), or None
    pair       [b n n p] pair representation, or None; where there is a grid, of its columns: [b columns columns p]
    frames     [b n 4 3] the rotation of each token's frame (rows 0…2; its columns are the axes) and its origin (row 3, in
               Å for residues); all 0: the token has none. None: no token has
    grid       (rows, columns) where the tokens are a whole grid, row by row; None otherwise
    angles     rotated width → (cos, sin) [b n width/2], made once by the trunk's position, or None
    bias       the Bias of the trunk's position, or None
    memory     the Hidden that cross mixers read, or None
    streams    [b n] int: which of the trunk's inputs each token is from, -1 class and register tokens; None: one input
    places     [b n] int: tokens of lower numbers are read first, those of one number as they stand (an input that is
               spliced into another); None: all as they stand
    elsewhere  (angles, bias) of each position that blocks have of their own, in place of the trunk's; None: none has one
    whole      where the tokens of a row are spread over processes, the Hidden of all of them, of which these begin at `begin`
    documents  [k+1] int32: where each segment begins in the rows laid end to end, padding being one too, and where the last ends;
               made once by the trunk. None: there are none, or one is not in one piece
    """

    x: Tensor
    coords: Tensor | None = None
    valid: Tensor | None = None
    segments: Tensor | None = None
    spans: dict[str, tuple[int, int]] | None = None
    condition: Tensor | None = None
    pair: Tensor | None = None
    frames: Tensor | None = None
    grid: tuple[int, int] | None = None
    angles: dict[int, tuple[Tensor, Tensor]] | None = None
    bias: Bias | None = None
    memory: Any = None
    streams: Tensor | None = None
    places: Tensor | None = None
    elsewhere: tuple[tuple[dict[int, tuple[Tensor, Tensor]] | None, Bias | None], ...] | None = None
    whole: Any = None
    begin: int = 0
    documents: Tensor | None = None

    def of(self, name: str) -> Hidden:
        """The part that came from one stream (or `tokens`: class and register tokens)."""
        start, stop = (self.spans or {})[name]
        cut = self.each(lambda part: part[:, start:stop])
        pair = self.pair if self.pair is None or self.grid else self.pair[:, start:stop, start:stop]
        spans = {name: (0, stop - start)}
        return Hidden(cut.x, cut.coords, cut.valid, cut.segments, spans, self.condition, pair, cut.frames, self.grid)

    def carrying(self, x: Tensor) -> Hidden:
        """The same tokens with another x: what _replace(x=x) gives, in a quarter of the time."""
        return Hidden(x, *self[1:])

    def each(self, change: Callable[[Tensor], Tensor]) -> Hidden:
        """With what `change` makes of x, and of coords, valid, segments, frames, streams and places where they are there;
        without `documents`."""
        coords = None if self.coords is None else change(self.coords)
        valid = None if self.valid is None else change(self.valid)
        segments = None if self.segments is None else change(self.segments)
        frames = None if self.frames is None else change(self.frames)
        streams = None if self.streams is None else change(self.streams)
        places = None if self.places is None else change(self.places)
        return self._replace(
            x=change(self.x),
            coords=coords,
            valid=valid,
            segments=segments,
            frames=frames,
            streams=streams,
            places=places,
            documents=None,
        )


class Loss(NamedTuple):
    """What an objective returns.

    total    scalar: the sum of the loss over its targets
    count    scalar: how many targets it is over; total / count is the loss
    terms    name → (sum, count), for the log only
    outputs  tensors worth looking at (representations, predictions), detached
    """

    total: Tensor
    count: Tensor  # type: ignore[assignment]  # a tuple has a method of this name
    terms: dict[str, tuple[Tensor, Tensor]]
    outputs: dict[str, Tensor]

    @property
    def mean(self) -> Tensor:
        return self.total / self.count.clamp(min=1)

    def with_balance(self, extra: Tensor) -> Loss:
        """With `extra`, what parts of the model ask for, added to the total and told in the term `balance`."""
        terms = {**self.terms, "balance": (extra.detach(), self.count)}
        return self._replace(total=self.total + extra, terms=terms)

    def share(self, size: int) -> Loss:
        """One of `size` equal parts of it."""
        if size == 1:
            return self
        terms = {name: (total / size, count / size) for name, (total, count) in self.terms.items()}
        return self._replace(total=self.total / size, count=self.count / size, terms=terms)


def wide(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it is that already: for sums and recurrences that bf16 cannot hold."""
    return x if x.dtype == torch.float64 else x.float()


def take(values: Tensor, index: Tensor) -> Tensor:
    """values [b n …] at index [b k] → [b k …]."""
    shape = index.shape + values.shape[2:]
    flat = index.reshape(*index.shape, *([1] * (values.dim() - 2))).expand(shape)
    return torch.gather(values, 1, flat)
