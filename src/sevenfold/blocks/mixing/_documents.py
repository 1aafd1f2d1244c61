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
    """Each token's attention within its segment, [b h n d_h], from q [b h n d_h], k and v [b kv n d_h]; None where the mask is
    to be used. Padding gets numbers that nobody reads."""
    if hidden.segments is None or hidden.streams is not None:
        return None
    if q.is_cuda:
        fits = not dropout and q.dtype in (torch.bfloat16, torch.float16) and q.shape[-1] <= 256
        if fits and flash() is not None:
            return _flash(q, k, v, hidden, causal, scale)
        return None
    if torch.compiler.is_compiling() or q.device.type != "cpu":
        return None
    sizes = lengths(hidden)
    if sizes is None or len(sizes) * SHORTEST > q.shape[0] * q.shape[2]:
        return None
    parts = [_line(part).split(sizes) for part in (q, k, v)]
    found = [attend(*(part.transpose(0, 1)[None] for part in one), None, causal)[0] for one in zip(*parts)]
    return _rows(torch.cat(found, 1).transpose(0, 1), q)


def lengths(hidden: Hidden) -> list[int] | None:
    """Tokens of each document, rows one after the other, padding among them; None if a document is not in one piece."""
    marks = _marked(hidden)
    first = _first(marks)
    places = first.flatten().nonzero()[:, 0]
    pairs = torch.stack([places // marks.shape[1], marks.flatten()[places]], 1)
    if len(torch.unique(pairs, dim=0)) < len(places):
        return None
    sizes: list[int] = torch.diff(places, append=places.new_tensor([marks.numel()])).tolist()
    return sizes


def _marked(hidden: Hidden) -> Tensor:
    """The segment of each token, [b n]; padding has one of its own."""
    segments = hidden.segments
    assert segments is not None
    return segments if hidden.valid is None else torch.where(hidden.valid, segments, -1)


def _first(marks: Tensor) -> Tensor:
    """[b n] bool: where a document, or a row, begins."""
    begin = torch.ones_like(marks[:, :1], dtype=torch.bool)
    return torch.cat([begin, marks[:, 1:] != marks[:, :-1]], 1)


def _flash(q: Tensor, k: Tensor, v: Tensor, hidden: Hidden, causal: bool, scale: float | None) -> Tensor:
    kernel, first, longest = flash(), _first(_marked(hidden)), q.shape[2]
    assert kernel is not None
    ends = first.new_full((1,), first.numel(), dtype=torch.int32)
    places = torch.cat([first.flatten().nonzero()[:, 0].int(), ends])
    settings: dict[str, Any] = {"scale": scale, "window_size": (-1, 0) if causal else (-1, -1)}
    if q.shape[1] != k.shape[1]:
        settings["enable_gqa"] = True
    y = kernel(*map(_line, (q, k, v)), places, places, longest, longest, **settings)
    return _rows(y, q)


def _line(x: Tensor) -> Tensor:
    """[b h n d] → [b*n h d]."""
    return x.transpose(1, 2).flatten(0, 1)


def _rows(y: Tensor, like: Tensor) -> Tensor:
    """[b*n h d] → [b h n d]."""
    return y.unflatten(0, (like.shape[0], like.shape[2])).transpose(1, 2)
