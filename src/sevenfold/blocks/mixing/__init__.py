"""Context mixing: how tokens learn of each other.

The contract of this room, about mixing and not about attention. A mixer maps a whole sequence at once (`forward`), and
a causal one also continues a sequence from a state (`start`, `step`): stepping through a sequence in pieces of any
length gives what one forward pass gives. Padding (at the ends of a row) and other segments never change a token. A state is
a pytree whose tensors have one entry per row: rows can be taken, copied, and some mixers take back their last tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from sevenfold.blocks.projection import Projection
from sevenfold.blocks.projection.linear import Linear
from sevenfold.core import part
from sevenfold.core.cut import Cuttable
from sevenfold.core.initial import Ruled
from sevenfold.core.types import Hidden, Mask

Project = Callable[[int, int], Projection]
"""(width_in, width_out) → a projection."""


class Mixer(part.Part, Ruled, Cuttable):
    """A mixer for tokens of one width. `out` is its last projection (scaled down with depth at initialisation)."""

    room = "mixing"

    class Config(part.Config):
        pass

    bidirectional: ClassVar[bool] = True
    """Whether it can work without a causal mask."""
    crosses: ClassVar[bool] = False
    """Whether it reads `hidden.memory` instead of its own tokens."""
    joins: ClassVar[bool] = False
    """Whether, reading `hidden.memory`, it reads its own tokens beside it: then it has something to read where memory is all
    padding, and `weights` has columns for both, memory first."""
    narrow: bool = False
    """Whether it looks at fewer tokens than the mask allows, by a rule of its own (a window, a grid)."""
    pairs: ClassVar[bool] = False
    """Whether it updates the pair representation: it reads hidden.pair [b n n p] (normed by the block, if it `needs` it) and
    hidden.x (as it is), gives [b n n p], and its `width` is p. It belongs in `block.pair`."""
    continues: ClassVar[bool] = True
    """Whether it works under a causal mask and continues a sequence from a state (`start`, `step`)."""
    caches: ClassVar[bool] = False
    """Whether it keeps keys and values in a cache: then `start` also takes the cache that is asked for (or None) and the mask
    (see sevenfold.blocks.mixing.cache)."""
    spreads: ClassVar[bool] = False
    """Whether the tokens of a row may be spread over processes: it then reads `hidden.whole`."""
    exact: ClassVar[bool] = False
    """Whether what it needs for a moment (`scratch`) is in float32 also where products run in bf16."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What it needs of a Hidden besides tokens: `pair`, `frames`, `grid`, `streams`. A trunk that has none refuses it."""
    heeds: ClassVar[frozenset[str]] = frozenset()
    """What it heeds of a Mask besides `causal`: `window`, `prefix`. A trunk refuses a mask that its mixers ignore."""
    heads: int | None = None
    """How many heads add a position's bias to their scores; None: it has no scores."""
    out: Projection

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__()
        self.config, self.width = config, width
        self.project: Project = project or Linear.Config().build

    @property
    def rotated(self) -> int | None:
        """The width of what a rotary position turns, or None if it turns nothing."""
        return None

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008 (a frozen default)
        """Hidden with x [b n d] → [b n d]."""
        raise NotImplementedError

    def start(self, rows: int, length: int, like: Tensor) -> Any:
        """The state before any token, for at most `length` tokens, with the device and dtype of `like`."""
        raise NotImplementedError

    def step(self, hidden: Hidden, state: Any, mask: Mask) -> tuple[Tensor, Any]:
        """The next k tokens, x [b k d], after what the state has seen → ([b k d], the new state).

        The given state is used up: it may be changed in place. Tokens of `mask.prefix` come in one piece.
        """
        raise NotImplementedError

    def rows(self, state: Any, index: Tensor) -> Any:
        """The state of the rows at `index` [k], in that order and as often: beams, several samples of one prompt. The given
        state stays as it is, and shares no memory with what is returned."""
        return tree_map_only(Tensor, lambda part: part.index_select(0, index), state)

    def rewind(self, state: Any, count: int) -> Any | None:
        """The state before the last `count` tokens, or None where it cannot be had. The given state is used up."""
        return state if count == 0 else None

    def weights(self, hidden: Hidden, mask: Mask = Mask(), rows: Tensor | None = None) -> Tensor | None:  # noqa: B008
        """How much each token takes from each, [b h n m] (or only the query `rows`), summing to 1 over m.

        Recomputed beside the kernel that forward uses, so that looking changes nothing. Rows of a cross mixer that
        have nothing to read are 0. None: it has no such weights.
        """
        return None

    def values(self, hidden: Hidden) -> Tensor | None:
        """What `weights` weigh, [b h m d_h]: out(weights @ values, heads side by side) is what forward gives."""
        return None

    def flops(self, tokens: int, attended: int) -> int:
        """Multiply-adds ×2 of one row of `tokens` tokens (attending to `attended`), by formula."""
        raise NotImplementedError

    def flops_once(self, tokens: int) -> int:
        """Multiply-adds ×2 that a batch takes once, however many rows it has (filters made of weights), by formula."""
        return 0

    def kept(self, tokens: int, attended: int) -> int:
        """Numbers that the forward pass of one row keeps for the backward pass, beside what is given to it (hidden.x,
        parameters, angles) and what rows share (a mask), by formula; under a causal mask where the part has the choice,
        and without rotary position."""
        raise NotImplementedError

    def again(self, tokens: int, attended: int) -> int:
        """Multiply-adds ×2 that the backward pass of one row takes beside twice those of `flops`, for what it computes once
        more instead of keeping it, by formula."""
        return 0

    def scratch(self, tokens: int, attended: int) -> int:
        """Numbers that either pass over one row needs for a moment, beside what is kept, by formula."""
        return 6 * tokens * self.width

    def scored(self, tokens: int, attended: int, causal: bool) -> tuple[int, int]:
        """What it needs in addition for a moment where products run in bf16 on a CPU: bytes a row of the batch, and of how many
        rows at a time. `causal`: nothing else is masked."""
        return 0, 0

    def turned(self, tokens: int) -> int:
        """Numbers kept in addition where a rotary position turns queries and keys, of one row, by formula."""
        return 2 * tokens * (self.heads or 1) * (self.rotated or 0)

    def attended(self, tokens: int, grid: tuple[int, int] | None = None) -> int:
        """How many tokens each of `tokens` attends to where nothing is masked (of one that updates pairs: the side of the
        pair), which `flops` and `kept` are asked with."""
        return grid[1] if self.pairs and grid is not None else tokens

    def cached(self, tokens: int) -> int:
        """Numbers of state that one row needs to go on after `tokens` tokens (`start(1, tokens, …)`; of a cross mixer:
        with `tokens` tokens of memory), by formula."""
        raise NotImplementedError


def allowed(hidden: Hidden, mask: Mask, rows: slice = slice(None)) -> Tensor | None:
    """The description of a mask as a matrix: [b 1 n n] bool, True where row may look at column (of the `rows` only); None if
    nowhere hidden.

    A token always sees itself, so that no row is empty, padding included.
    """
    n, device = hidden.x.shape[1], hidden.x.device
    seen: Tensor | None = None
    place = torch.arange(n, device=device)
    asks = place[rows]
    if mask.causal or mask.window is not None:
        distance = asks[:, None] - place[None, :]
        near = torch.ones_like(distance, dtype=torch.bool)
        if mask.causal:
            near = distance >= 0
        if mask.window is not None:
            near = near & (distance.abs() < mask.window)
        seen = near[None]
        if mask.prefix is not None:
            head = place[None, :] < mask.prefix[:, None]
            seen = seen | (head[:, rows, None] & head[:, None, :])
    if hidden.segments is not None:
        same = hidden.segments[:, rows, None] == hidden.segments[:, None, :]
        seen = same if seen is None else seen & same
    if hidden.valid is not None:
        real = hidden.valid[:, None, :].expand(-1, len(asks), -1)
        seen = real if seen is None else seen & real
    if seen is None:
        return None
    return (seen | (asks[:, None] == place)[None])[:, None]


def paired(hidden: Hidden) -> Tensor | None:
    """Which pairs are of two valid tokens of one segment, [b n n] bool; None if all are. Of a grid: pairs of columns, where
    a column is valid if any of its tokens is, and its segment is that of its first token."""
    valid, segments = hidden.valid, hidden.segments
    if hidden.grid is not None:
        valid = None if valid is None else valid.unflatten(1, hidden.grid).any(1)
        segments = None if segments is None else segments[:, : hidden.grid[1]]
    found = None if valid is None else valid[:, :, None] & valid[:, None, :]
    if segments is not None:
        same = segments[:, :, None] == segments[:, None, :]
        found = same if found is None else found & same
    return found


def starts(hidden: Hidden) -> Tensor | None:
    """[b n] bool: where a token begins a new segment, so that recurrent and local mixers forget; None if nowhere."""
    if hidden.segments is None:
        return None
    first = torch.ones_like(hidden.segments[:, :1], dtype=torch.bool)
    return torch.cat([first, hidden.segments[:, 1:] != hidden.segments[:, :-1]], dim=1)


def documents(hidden: Hidden) -> Tensor | None:
    """What a trunk puts into `hidden.documents`, on the device of the tokens."""
    if hidden.segments is None or hidden.streams is not None or torch.compiler.is_compiling():
        return None
    marks = hidden.segments if hidden.valid is None else torch.where(hidden.valid, hidden.segments, -1)
    first = starts(hidden._replace(segments=marks))
    assert first is not None
    places = first.flatten().nonzero()[:, 0]
    pairs = torch.stack([places // marks.shape[1], marks.flatten()[places]], 1)
    if len(torch.unique(pairs, dim=0)) < len(places):
        return None
    return torch.cat([places, places.new_tensor([marks.numel()])]).int()


def default_heads(width: int) -> int:
    """Heads of width 64 (32 below width 256), or the nearest number of heads that divides with an even head width."""
    wanted = max(1, width // (64 if width >= 256 else 32))
    fitting = [heads for heads in range(1, width + 1) if width % heads == 0 and (width // heads) % 2 == 0] or [1]
    return min(fitting, key=lambda heads: abs(heads - wanted))
