"""Attention over short rows in bf16 on a CPU, some heads at a time: a few large products instead of many small ones.

    P = softmax(s Q K^T),  Y = P V,     dV = P^T dY,  dP = dY V^T,  dS = s P (dP - sum(P dP)),  dQ = dS K,  dK = dS^T Q

PyTorch's own kernel is made for long rows: its bf16 products are of small tiles, and on rows of a few hundred tokens it takes two to
four times as long. Nothing but Q, K and V is kept for the backward pass: P is made again there. Scores are summed in float32 within a
product and rounded to bf16 once, softmax is in float32. Under a causal mask queries are taken some at a time, with no keys behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MOST = 512
"""The longest rows that this pays for."""
SCORES = 1 << 20
"""Scores at a time: they stay in a cache near the processor."""


def pays(q: Tensor, k: Tensor) -> bool:
    """Whether queries [b h n d] and keys [b h m d] are better looked at here than by PyTorch's kernel."""
    return q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] > 1 and k.shape[2] <= MOST >= q.shape[2]


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = False, seen: Tensor | None = None) -> Tensor:
    """q [b h n d], k and v [b h m d] → [b h n d], laid out as [b n h d]. `seen` [b or 1, 1, n or 1, m] bool: what may be looked
    at, something by every query."""
    return _Rows.apply(q, k, v, scale, causal, seen)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool, seen: Tensor | None) -> Tensor:
        ctx.save_for_backward(q, k, v, seen)
        ctx.scale, ctx.causal = scale, causal
        b, h, n, _ = q.shape
        y = q.new_empty(b, n, h, v.shape[-1])
        for rows, pieces in _pieces(q, k, causal):
            queries, keys, values = _flat(q[rows]), _flat(k[rows]), _flat(v[rows])
            for here, upto in pieces:
                p = _scores(queries, keys, seen, scale, causal, h, rows, here, upto).softmax(-1)
                made = torch.bmm(p, values[:, :upto])
                y[rows, here] = made.unflatten(0, (-1, h)).transpose(1, 2)
        return y.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, seen = ctx.saved_tensors
        h = q.shape[1]
        d_q, d_k, d_v = (x.new_empty(len(x), x.shape[2], h, x.shape[3]) for x in (q, k, v))
        for rows, pieces in _pieces(q, k, ctx.causal):
            queries, keys, values, given = _flat(q[rows]), _flat(k[rows]), _flat(v[rows]), _flat(d_y[rows])
            for here, upto in pieces:
                p = _scores(queries, keys, seen, ctx.scale, ctx.causal, h, rows, here, upto).float().softmax(-1)
                d_s = torch.bmm(given[:, here], values[:, :upto].mT).float()
                d_s = torch._softmax_backward_data(d_s, p, -1, p.dtype).to(q.dtype)
                of_keys = torch.bmm(d_s.mT, queries[:, here])
                of_values = torch.bmm(p.to(q.dtype).mT, given[:, here])
                if here.stop == q.shape[2]:  # the last queries come first: they see all keys
                    sums = of_keys.float(), of_values.float()
                else:
                    sums[0][:, :upto] += of_keys
                    sums[1][:, :upto] += of_values
                d_q[rows, here] = _times(d_s, keys[:, :upto], ctx.scale).unflatten(0, (-1, h)).transpose(1, 2)
            d_k[rows] = sums[0].mul_(ctx.scale).unflatten(0, (-1, h)).transpose(1, 2)
            d_v[rows] = sums[1].unflatten(0, (-1, h)).transpose(1, 2)
        return d_q.transpose(1, 2), d_k.transpose(1, 2), d_v.transpose(1, 2), None, None, None


def _flat(x: Tensor) -> Tensor:
    """[b h n d] → [b·h n d], each head by itself: what products read turned round is not laid down anew."""
    return x.reshape(-1, *x.shape[2:])


def _times(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale A B, of each head."""
    return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=scale)


def queries(n: int, causal: bool) -> int:
    """How many of n queries are taken at a time."""
    return n if not causal else min(n, 64 if n <= 256 else 128)


def held(heads: int, n: int, m: int, causal: bool) -> tuple[int, int]:
    """Bytes that are there for a moment for each row of the batch (scores and their gradient in float32, before and after), and
    of how many rows at a time; none where this does not pay."""
    each = heads * queries(n, causal) * m
    return (14 * each, max(1, SCORES // each)) if 1 < n <= MOST >= m else (0, 0)


def _pieces(q: Tensor, k: Tensor, causal: bool) -> Iterator[tuple[slice, list[tuple[slice, int]]]]:
    """Some rows of the batch, and of these (queries, how many keys they may see) of each piece; the last queries first."""
    b, h, n, _ = q.shape
    m = k.shape[2]
    step = queries(n, causal)
    some = max(1, SCORES // (h * step * m))
    for row in range(0, b, some):
        places = [slice(start, min(start + step, n)) for start in reversed(range(0, n, step))]
        yield slice(row, min(row + some, b)), [(here, here.stop if causal else m) for here in places]


def _scores(
    q: Tensor,
    k: Tensor,
    seen: Tensor | None,
    scale: float,
    causal: bool,
    heads: int,
    rows: slice,
    here: slice,
    upto: int,
) -> Tensor:
    """How near the queries of a piece are to each key. q and k are those of `rows`, [b·h n d]."""
    scores = _times(q[:, here], k[:, :upto].mT, scale)
    if causal:
        count = here.stop - here.start
        scores[..., here] += torch.full((count, count), float("-inf"), dtype=q.dtype).triu_(1)
    if seen is not None:
        own = seen[rows if len(seen) > 1 else slice(None), :, here if seen.shape[2] > 1 else slice(None), :upto]
        scores.unflatten(0, (-1, heads)).masked_fill_(~own, float("-inf"))
    return scores
