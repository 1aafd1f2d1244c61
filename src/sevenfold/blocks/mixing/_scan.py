"""What recurrent mixers are built of: passes that carry a state, short convolutions, chunked sums, a linear scan.

Segments reach all of them as `run` [b n]: how many segments have begun up to a token since the state that is given (0:
the state is of the token's own segment). Everything here that sums over tokens works in float32 or float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sevenfold.blocks.mixing import Mixer, Project
from sevenfold.core.types import Hidden, Mask

NOWHERE = -(2**31)
"""The segment of what is before any token."""


GROUP = 1024
"""Tokens that a recurrent mixer works at, forwards and backwards, before it turns to the next ones."""


class Recurrent(Mixer):
    """y = out(gate(pass(up(x)))), where the pass is causal and carries a state.

    Without a causal mask a second pass runs backwards and is added. Between `up` and `out` the forward pass keeps a state
    after every GROUP tokens only, and the backward pass computes the rest again, group by group: what is in memory for it
    does not grow with the sequence.
    """

    exact = True
    up: Any

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)

    def walk(self, u: Tensor, valid: Tensor | None, ids: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        """u [b n …] → (y [b n …], the state after it, if one is given). `ids` [b n] segments, or None: all one segment;
        `state` None: nothing was before."""
        raise NotImplementedError

    def gate(self, y: Tensor, u: Tensor) -> Tensor:
        """What `out` reads, from what the passes gave."""
        raise NotImplementedError

    def passes(self, u: Tensor, valid: Tensor | None, ids: Tensor | None, causal: bool) -> Tensor:
        """The pass, or the sum of both, and the gate."""
        if causal:
            return self.grouped(u, valid, ids, True)
        back = self.grouped(u.flip(1), flipped(valid), flipped(ids), False).flip(1)
        return lean(self.summed, self.grouped(u, valid, ids, False), back, u, valid)

    def grouped(self, u: Tensor, valid: Tensor | None, ids: Tensor | None, gated: bool) -> Tensor:
        """One pass in groups of tokens, and the gate if asked for."""
        found = []
        state = self.start(len(u), u.shape[1], u) if u.shape[1] > GROUP else None
        for part, real_part, ids_part in zip(u.split(GROUP, 1), parts(valid, u), parts(ids, u)):
            y, state = lean(self._group, part, real_part, ids_part, state, gated)
            found.append(y)
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    def _group(
        self, u: Tensor, valid: Tensor | None, ids: Tensor | None, state: Any, gated: bool
    ) -> tuple[Tensor, Any]:
        y, state = self.walk(u, valid, ids, state)
        return self.gate(y, u) if gated else y, state

    def summed(self, y: Tensor, back: Tensor, u: Tensor, valid: Tensor | None) -> Tensor:
        """The gate, of what two passes gave."""
        return self.gate(y + back, u)

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        return self.out(self.passes(self.up(hidden.x), hidden.valid, hidden.segments, mask.causal))

    def again(self, tokens: int, attended: int) -> int:
        """All but the projections."""
        return self.flops(tokens, attended) - self.up.flops(tokens) - self.out.flops(tokens)

    def step(self, hidden: Hidden, state: Any, mask: Mask) -> tuple[Tensor, Any]:
        u = self.up(hidden.x)
        ids = torch.zeros_like(u[..., 0], dtype=torch.long) if hidden.segments is None else hidden.segments
        y, state = self.walk(u, hidden.valid, ids, state)
        return self.out(self.gate(y, u)), state


def borders(tokens: int) -> int:
    """How many states a pass over `tokens` tokens keeps between its groups."""
    return -(-tokens // GROUP) if tokens > GROUP else 0


def parts(x: Tensor | None, u: Tensor) -> Sequence[Tensor | None]:
    """x [b n], or None, in the groups of u [b n c]."""
    return [None] * -(-u.shape[1] // GROUP) if x is None else x.split(GROUP, 1)


def lean(function: Callable[..., Any], *inputs: Any) -> Any:
    """function(*inputs), of which autograd keeps the inputs only, and computes the rest again in the backward pass."""
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def exact(x: Tensor) -> Any:
    """A context without autocast, for sums that bf16 cannot hold."""
    return torch.autocast(x.device.type, enabled=False)


def flipped(x: Tensor | None) -> Tensor | None:
    """x [b n …] from the last token to the first."""
    return None if x is None else x.flip(1)


def real(x: Tensor, valid: Tensor | None) -> Tensor:
    """x [b n c] with 0 at padding."""
    return x if valid is None else torch.where(valid.unsqueeze(-1), x, 0.0)


def begun(ids: Tensor | None, last: Tensor | None) -> Tensor | None:
    """[b n] bool: where a segment begins; `last` [b] is the segment before the first token."""
    if ids is None:
        return None
    before = ids.new_full((len(ids),), NOWHERE) if last is None else last
    return ids.ne(torch.cat([before[:, None], ids[:, :-1]], 1))


def runs(ids: Tensor | None, last: Tensor | None) -> Tensor | None:
    """[b n]: how many segments have begun up to a token."""
    begins = begun(ids, last)
    return None if begins is None else begins.long().cumsum(1)


class Past(NamedTuple):
    """The last tokens that a short convolution has seen: columns [b k-1 c] and their segments [b k-1]."""

    columns: Tensor
    ids: Tensor


def no_past(rows: int, kernel: int, channels: int, like: Tensor) -> Past:
    """What a short convolution has seen before any token."""
    ids = torch.full((rows, kernel - 1), NOWHERE, dtype=torch.long, device=like.device)
    return Past(like.new_zeros(rows, kernel - 1, channels), ids)


def short(u: Tensor, taps: Tensor, ids: Tensor | None, past: Past | None) -> tuple[Tensor, Past | None]:
    """Causal depthwise convolution: u [b n c], taps [c k] → ([b n c], the new past). Taps stay within a segment."""
    kernel, n = taps.shape[1], u.shape[1]
    old = no_past(len(u), kernel, u.shape[2], u) if past is None else past
    whole = torch.cat([old.columns.to(u.dtype), u], 1)
    every = None if ids is None else torch.cat([old.ids, ids], 1)
    y = u * taps[:, -1]
    for tap in range(kernel - 1):
        part = whole[:, tap : tap + n]
        if every is not None and ids is not None:
            part = part * every[:, tap : tap + n].eq(ids).unsqueeze(-1)
        y = y + part * taps[:, tap]
    return y, None if past is None else Past(whole[:, n:], past.ids if every is None else every[:, n:])


class Decays(NamedTuple):
    """What is left of one thing in another, for chunks of C tokens: between tokens of a chunk [… C C] (0 for later ones and
    for other segments), of the state before it in a token [… C 1], of a token in the state after it [… C 1], of the state
    before in the state after [… 1 1]."""

    between: Tensor
    before: Tensor
    after: Tensor
    across: Tensor


def decays(log_decay: Tensor, run: Tensor | None, size: int) -> Decays:
    """log_decay [b h n], never above 0. Only differences of its sums are raised to e, so nothing overflows; sums begin
    again with a segment, so that not even rounding reaches another one."""
    g = chunks(log_decay.unsqueeze(-1), size).squeeze(-1)
    hides = torch.ones(size, size, dtype=torch.bool, device=g.device).triu(1)
    if run is None:
        c = g.cumsum(-1)
        before, after, across = c, c[..., -1:] - c, c[..., -1:]
    else:
        tail = run[:, -1:].expand(-1, g.shape[2] * size - run.shape[1])
        run = torch.cat([run, tail], 1).unflatten(1, (-1, size))[:, None]
        first = torch.cat([torch.zeros_like(run[:, :, :1, 0]), run[:, :, :-1, -1]], 2).unsqueeze(-1)
        hides = hides | (run.unsqueeze(-1) != run.unsqueeze(-2))
        c = ((~hides).to(g.dtype) @ g.unsqueeze(-1)).squeeze(-1)
        before = c.masked_fill(run != first, -torch.inf)
        after = (c[..., -1:] - c).masked_fill(run != run[..., -1:], -torch.inf)
        across = c[..., -1:].masked_fill(run[..., -1:] != first, -torch.inf)
    between = (c.unsqueeze(-1) - c.unsqueeze(-2)).masked_fill(hides, -torch.inf)
    return Decays(between.exp(), before.exp().unsqueeze(-1), after.exp().unsqueeze(-1), across.exp().unsqueeze(-1))


def chunks(x: Tensor, size: int) -> Tensor:
    """[b h n d] → [b h m size d], zeros at the end."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % size)).unflatten(2, (-1, size))


def linear(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, run: Tensor | None, state: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """y_i = S_i^T q_i, S_i = a_i S_(i-1) + k_i v_i^T, in chunks: ([b h n d_v], the last S [b h d_k d_v]).

    q, k [b h n d_k], v [b h n d_v], log_decay [b h n] = log a, state [b h d_k d_v].
    """
    n, size = q.shape[2], min(chunk, q.shape[2])
    left = decays(log_decay, run, size)
    q, k, v = (chunks(x, size) for x in (q, k, v))
    added = (k * left.after).mT @ v
    befores = []
    for place in range(q.shape[2]):
        befores.append(state)
        state = state * left.across[:, :, place] + added[:, :, place]
    y = ((q @ k.mT) * left.between) @ v + (q * left.before) @ torch.stack(befores, 2)
    return y.flatten(2, 3)[:, :, :n], state


def linear_flops(tokens: int, heads: int, d_k: int, d_v: int, chunk: int) -> int:
    """FLOPs of `linear` for one row."""
    size = min(chunk, tokens)
    return -(-tokens // size) * heads * 2 * size * (size * (d_k + d_v) + 2 * d_k * d_v)


def scan(keep: Tensor, new: Tensor, first: Tensor) -> Tensor:
    """h_t = keep_t h_(t-1) + new_t over dimension 1, h_(-1) = first: [b n …] each, first [b …]. O(n) work.

    In about sqrt(n) pieces of sqrt(n) tokens: all pieces walk at once, then the last h of each is carried into the next.
    """
    n = new.shape[1]
    size = max(1, round(n**0.5))
    padding = -n % size
    if padding:
        keep = torch.cat([keep, torch.ones_like(keep[:, :padding])], 1)
        new = torch.cat([new, torch.zeros_like(new[:, :padding])], 1)
    keeps, news = keep.unflatten(1, (-1, size)).unbind(2), new.unflatten(1, (-1, size)).unbind(2)
    h, reach = [news[0]], [keeps[0]]
    for place in range(1, size):
        h.append(torch.addcmul(news[place], keeps[place], h[-1]))
        reach.append(keeps[place] * reach[-1])
    carry = [first]
    for last, whole in list(zip(h[-1].unbind(1), reach[-1].unbind(1)))[:-1]:
        carry.append(torch.addcmul(last, whole, carry[-1]))
    carried = torch.stack(carry, 1)
    return torch.stack([torch.addcmul(a, b, carried) for a, b in zip(h, reach)], 2).flatten(1, 2)[:, :n]


def first_steps(shape: torch.Size) -> Tensor:
    """Biases with which softplus gives steps between 0.001 and 0.1, evenly on a logarithmic scale."""
    dt = torch.empty(shape).uniform_(math.log(1e-3), math.log(0.1)).exp().clamp(min=1e-4)
    return dt + torch.log(-torch.expm1(-dt))
