"""How well a head tells ids: the cross-entropy of places that have a target, without ever holding very many logits.

    L = - sum_i log softmax(W h_i + b)_{t_i}        dL/dh_i = W' (p_i - e_{t_i}),   dL/dW = sum_i (p_i - e_{t_i}) h_i'

Where the logits would be more than LARGE numbers, places without a target (-100) are left out before the product, and the logits are
made for ROWS places at a time, and the gradients with them, in the forward pass: of v ids memory is ROWS v instead of n v, and no
product is done twice; what is done to each logit is done to NEAR of them at a time (Wijmans 2024, arXiv:2411.09009 section 3; Liger Kernel, arXiv:2410.10989 section 3.2). Sums are in float32 at least.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sevenfold.assembly.model import Model
from sevenfold.core.types import wide

ROWS = 1024
"""Places at a time."""
NEAR = 1 << 20
"""Logits that are looked at together on a CPU: they stay in its cache meanwhile."""
LARGE = 1 << 23
"""Logits up to this many are made at once (32 MiB in float32)."""


class Told(NamedTuple):
    """Over places with a target: `loss`, the sum that is trained on; `nats`, the same without smoothing; `count`; `right`, how many
    are the likeliest id. `each` [n] are the nats of every place, 0 where there is no target."""

    loss: Tensor
    nats: Tensor
    count: Tensor  # type: ignore[assignment]
    right: Tensor
    each: Tensor


def told(model: Model, head: str, x: Tensor, targets: Tensor, smoothing: float = 0.0, most: bool = False) -> Told:
    """x [… d] of the head's trunk and ids [… ], -100 for none → how well the head tells them. `smoothing`: that share of each
    target is spread evenly over all ids (Szegedy 2015, arXiv:1512.00567 section 7). `most`: nearly every place has a target, so that
    a device is not asked which."""
    x, targets = x.flatten(0, -2), targets.flatten()
    real = targets != -100
    large = len(targets) * model.heads[head].outputs > LARGE
    last = model.heads[head].last(model.table(head)) if large else None
    if last is None:
        logits = wide(model.head(head, x))
        nats, right = F.cross_entropy(logits, targets, reduction="none"), (logits.detach().argmax(-1) == targets) & real
        loss = nats.sum()
        if smoothing:
            loss = (1 - smoothing) * loss - smoothing * (logits.log_softmax(-1).mean(-1) * real).sum()
        each = nats.detach()
    else:
        if most and waits(x):
            loss, each, right = _InPieces.apply(
                model.heads[head].before(x), *last, targets.clamp(min=0), real, smoothing
            )
        else:
            places = real.nonzero()[:, 0]
            asked = (x, targets) if len(places) == len(targets) else (x[places], targets[places])
            loss, nats, right = _InPieces.apply(model.heads[head].before(asked[0]), *last, asked[1], None, smoothing)
            each = nats.new_zeros(len(targets)).index_put((places,), nats)
    return Told(loss, each.sum(), real.sum(), right.sum(), each)


def waits(x: Tensor) -> bool:
    """Whether the host waits where it asks for what is in a tensor: what a device has yet to compute."""
    return x.device.type != "cpu"


def together(places: int, outputs: int) -> int:
    """How many of so many places are looked at together on a CPU."""
    return min(places, max(1, NEAR // outputs))


def _add(total: Tensor, more: Tensor, first: bool) -> None:
    """total [v d] += more [v d], or = more at first. Of two types; a CPU would turn all of `more` into the wider one before it adds."""
    if first or total.dtype == more.dtype or total.device.type != "cpu":
        total.copy_(more) if first else total.add_(more)
        return
    few = max(1, NEAR // 4 // more.shape[1])
    for place in range(0, len(more), few):
        total[place : place + few] += more[place : place + few]


def _nats(logits: Tensor, p: Tensor, wanted: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Of logits [n v], their softmax p and the ids wanted [n 1]: (nats [n], the log of the sum of exponentials [n]); `right` [n] is set
    where the id is the likeliest, the first one of several that are as likely."""
    top, asked = logits.amax(-1), logits.gather(1, wanted)[:, 0]
    log_sum = top - p.amax(-1).log()
    best = slice(None) if waits(logits) else (asked == top).nonzero()[:, 0]
    right[best] = logits[best].argmax(-1) == wanted[best, 0]
    return log_sum - asked, log_sum


def _to_gradient(p: Tensor, wanted: Tensor, known: Tensor | None, smoothing: float) -> None:
    """The softmax p [n v] becomes the gradient of the loss by the logits, in place; 0 where there is no target (`known`)."""
    p.scatter_add_(1, wanted, p.new_full(wanted.shape, smoothing - 1))
    if smoothing:
        p -= smoothing / p.shape[1]
    if known is not None:
        p *= known[:, None]


class _InPieces(torch.autograd.Function):
    """(x [n d], W [v d], b [v] or None, targets [n], which of them there are [n] or None for all) → (the sum of losses, nats [n],
    right [n])."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        real: Tensor | None,
        smoothing: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        ctx.learns = x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
        with torch.autocast(kind, enabled=False):
            w, given, outputs = weight.to(dtype), x.to(dtype), len(weight)
            d_x = torch.empty_like(given) if ctx.learns else None
            d_w = torch.empty_like(weight) if weight.requires_grad else None
            d_b = torch.zeros_like(bias) if bias is not None and bias.requires_grad else None
            nats, right = wide(x.new_zeros(len(x))), torch.zeros_like(targets, dtype=torch.bool)
            even, most = nats.new_zeros(()), min(ROWS, len(x))
            # what is large is laid down once: fresh pages cost as much as the sums
            narrow, d = given.new_empty(most, outputs), None if d_w is None else torch.empty_like(w)
            few = most if waits(x) else together(most, outputs)
            full, shares = nats.new_empty(few, outputs), nats.new_empty(few, outputs)
            for start in range(0, len(x), ROWS):
                rows = given[start : start + ROWS]
                made = torch.mm(rows, w.T, out=narrow[: len(rows)])
                for place in range(0, len(rows), few):
                    some = made[place : place + few]
                    here = slice(start + place, start + place + len(some))
                    wanted, known = targets[here, None], None if real is None else real[here]
                    logits, p = full[: len(some)].copy_(some), shares[: len(some)]
                    if bias is not None:
                        logits += bias
                    torch.softmax(logits, -1, out=p)
                    nats[here], log_sum = _nats(logits, p, wanted, right[here])
                    if smoothing:
                        each = log_sum - logits.mean(-1)
                        even += (each if known is None else each * known).sum()
                    if d_x is not None:
                        _to_gradient(p, wanted, known, smoothing)
                        some.copy_(p)
                        if d_b is not None:
                            d_b += p.sum(0)
                if d_x is not None:
                    torch.mm(made, w, out=d_x[start : start + ROWS])
                    if d_w is not None:
                        _add(d_w, torch.mm(made.T, rows, out=d), first=start == 0)
        if d_w is not None and not len(x):
            d_w.zero_()
        if real is not None:
            nats *= real
            right &= real
        ctx.made, ctx.of = (d_x, d_w, d_b), x.dtype
        ctx.mark_non_differentiable(nats, right)
        return (1 - smoothing) * nats.sum() + smoothing * even, nats, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        found, ctx.made = ctx.made, None
        if found is None:
            raise RuntimeError("a loss in pieces goes backward once: its gradients are handed on, not kept")
        d_x, d_w, d_b = (None if d is None else wide(d).mul_(d_total) for d in found)
        return None if d_x is None else d_x.to(ctx.of), d_w, d_b, None, None, None
