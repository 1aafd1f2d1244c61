"""The scan of a selective state space as one step of autograd, so that its states need no memory."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.mixing._scan import exact, scan


class SelectiveScan(torch.autograd.Function):
    """y_t = C_t^T h_t, h_t = exp(D_t A) h_(t-1) + D_t B_t u_t, with D = softplus(raw), A = -exp(A_log).

    apply(u [b n e], raw [b n e], A_log [e N], B [b n N], C [b n N], h_0 [b e N], valid [b n] or None, begins [b n] or None,
    tokens of a piece) → (y [b n e], the last h). Padding leaves h as it is; where a segment begins, h starts from 0.

    Kept are the inputs and h at the borders of pieces. With l_t = dL/dh_t = C_t dL/dy_t + a_(t+1) l_(t+1), the same scan
    from the end: dL/dB_t = D_t u_t l_t, dL/d(log a_t) = l_t a_t h_(t-1).
    """

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        raw: Tensor,
        a_log: Tensor,
        b: Tensor,
        c: Tensor,
        h: Tensor,
        valid: Tensor | None,
        begins: Tensor | None,
        size: int,
    ) -> tuple[Tensor, Tensor]:
        found, borders = [], []
        with exact(u):
            for first in range(0, u.shape[1], size):
                piece = slice(first, first + size)
                dt, keep, new = _terms(u, raw, a_log, b, valid, begins, piece)
                borders.append(h)
                states = scan(keep, new, h)
                found.append((states @ c[:, piece, :, None]).squeeze(-1))
                h = states[:, -1]
        ctx.save_for_backward(u, raw, a_log, b, c, valid, begins, torch.stack(borders, 1))
        ctx.size = size
        return torch.cat(found, 1), h.clone()

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_h: Tensor) -> Any:
        u, raw, a_log, b, c, valid, begins, borders = ctx.saved_tensors
        size, n, rate = ctx.size, u.shape[1], a_log.exp()
        later, grad_a_log = grad_h, torch.zeros_like(a_log)
        pieces = []
        with exact(u):
            for index in reversed(range(borders.shape[1])):
                piece = slice(index * size, min(n, (index + 1) * size))
                dt, keep, new = _terms(u, raw, a_log, b, valid, begins, piece)
                states = scan(keep, new, borders[:, index])
                gy = grad_y[:, piece, :, None]
                after = torch.cat([keep[:, 1:], torch.ones_like(keep[:, :1])], 1)
                pull = scan(after.flip(1), (gy * c[:, piece, None]).flip(1), later).flip(1)
                later = keep[:, 0] * pull[:, 0]
                before = torch.cat([borders[:, index, None], states[:, :-1]], 1)
                slope = pull * keep * before * -rate
                taken = (pull @ b[:, piece, :, None]).squeeze(-1)
                grad_dt = slope.sum(-1) + u[:, piece] * taken
                if valid is not None:
                    grad_dt = grad_dt * valid[:, piece, None]
                grad_a_log = grad_a_log + (slope * dt.unsqueeze(-1)).sum((0, 1))
                grad_b = ((dt * u[:, piece]).unsqueeze(-2) @ pull).squeeze(-2)
                grad_c = (gy.mT @ states).squeeze(-2)
                pieces.append((dt * taken, grad_dt * torch.sigmoid(raw[:, piece]), grad_b, grad_c))
        grad_u, grad_raw, grad_b, grad_c = (torch.cat(parts[::-1], 1) for parts in zip(*pieces))
        return grad_u, grad_raw, grad_a_log, grad_b, grad_c, later, None, None, None


@torch.compiler.allow_in_graph
def selective_scan(
    u: Tensor,
    raw: Tensor,
    a_log: Tensor,
    b: Tensor,
    c: Tensor,
    h: Tensor,
    valid: Tensor | None,
    begins: Tensor | None,
    size: int,
) -> tuple[Tensor, Tensor]:
    """SelectiveScan as one node of a traced graph, whose loops over tokens would be long to trace."""
    found: tuple[Tensor, Tensor] = SelectiveScan.apply(u, raw, a_log, b, c, h, valid, begins, size)
    return found


def _terms(
    u: Tensor, raw: Tensor, a_log: Tensor, b: Tensor, valid: Tensor | None, begins: Tensor | None, piece: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one piece: D [b t e], what is kept and what is new [b t e N]."""
    dt = F.softplus(raw[:, piece])
    if valid is not None:
        dt = torch.where(valid[:, piece, None], dt, 0.0)
    keep = (dt.unsqueeze(-1) * -a_log.exp()).exp()
    if begins is not None:
        keep = keep.masked_fill(begins[:, piece, None, None], 0.0)
    return dt, keep, (dt * u[:, piece]).unsqueeze(-1) * b[:, piece, None]
