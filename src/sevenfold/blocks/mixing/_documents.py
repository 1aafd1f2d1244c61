"""Attention within packed documents, each by itself: sum l_i^2 scores of a row instead of n^2 under a mask.

On processors the row is split at the documents and each goes through the usual kernel; on CUDA, in 16 bits, all go through flash
attention for sequences of unequal length (Dao 2023, arXiv:2307.08691). Where neither can be (compiled for a processor, documents
of a few tokens, float32 on CUDA), there is the mask.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sevenfold.core.types import Hidden

SHORTEST = 16
"""Tokens that documents have on average, at least: below, calling the kernel for each takes longer than the mask."""
Attend = Callable[..., Tensor]
"""(q, k, v, mask, causal) → y, all [b h n d_h]."""


@cache
def flash() -> Any | None:
    """PyTorch's flash attention for sequences of unequal length, if this version has it; not imported before (seconds)."""
    try:
        found = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    except (ImportError, AttributeError):
        return None
    return found if "window_size" in inspect.signature(found).parameters else None


def within(
    attend: Attend, q: Tensor, k: Tensor, v: Tensor, hidden: Hidden, causal: bool, scale: float | None, dropout: float
) -> Tensor | None:
    """Each token's attention within its document, [b h n d_h], from q [b h n d_h], k and v [b kv n d_h]; None where the mask is
    to be used. Padding gets numbers that nobody reads."""
    if hidden.documents is None:
        return None
    if q.is_cuda:
        fits = not dropout and q.dtype in (torch.bfloat16, torch.float16) and q.shape[-1] <= 256
        return _flash(q, k, v, hidden.documents, causal, scale) if fits and flash() is not None else None
    if torch.compiler.is_compiling() or q.device.type != "cpu":
        return None
    sizes: list[int] = torch.diff(hidden.documents).tolist()
    if len(sizes) * SHORTEST > q.shape[0] * q.shape[2]:
        return None
    parts = [_line(part).split(sizes) for part in (q, k, v)]
    found = [attend(*(part.transpose(0, 1)[None] for part in one), None, causal)[0] for one in zip(*parts)]
    return _rows(torch.cat(found, 1).transpose(0, 1), q)


def _flash(q: Tensor, k: Tensor, v: Tensor, places: Tensor, causal: bool, scale: float | None) -> Tensor:
    kernel, longest = flash(), q.shape[2]
    assert kernel is not None
    settings: dict[str, Any] = {"scale": scale, "window_size": (-1, 0) if causal else (-1, -1)}
    if q.shape[1] != k.shape[1]:
        if "enable_gqa" in inspect.signature(kernel).parameters:
            settings["enable_gqa"] = True
        else:  # PyTorch 2.11
            k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], 1) for part in (k, v))
    return _rows(kernel(*map(_line, (q, k, v)), places, places, longest, longest, **settings), q)


def _line(x: Tensor) -> Tensor:
    """[b h n d] → [b*n h d]."""
    return x.transpose(1, 2).flatten(0, 1)


def _rows(y: Tensor, like: Tensor) -> Tensor:
    """[b*n h d] → [b h n d]."""
    return y.unflatten(0, (like.shape[0], like.shape[2])).transpose(1, 2)
