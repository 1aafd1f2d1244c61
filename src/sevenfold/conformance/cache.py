"""What every cache must do: see the contract in sevenfold.blocks.mixing.cache. Against attention over all keys, written out."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from sevenfold.blocks.mixing.cache import Kept
from sevenfold.conformance._kit import expect
from sevenfold.core.types import Hidden, Mask

ROWS, HEADS, TOKENS, WIDTH, WINDOW = 3, 2, 17, 6, 5
PIECES = ([1] * TOKENS, [7, 1, 1, 1, 3, 1, 1, 2], [TOKENS], [1, 1, 9, 1, 5])
MARKS = ("nothing", "padding", "segments", "both")


def given(marks: str) -> tuple[Hidden, tuple[Tensor, Tensor, Tensor]]:
    """Tokens with their marks, and queries, keys and values [b h n d_h] in float64."""
    q, k, v = torch.randn(3, ROWS, HEADS, TOKENS, WIDTH, dtype=torch.float64)
    valid = torch.arange(TOKENS) >= torch.tensor([0, 4, 9])[:, None]
    segments = (torch.arange(TOKENS) >= torch.tensor([3, 20, 12])[:, None]).long()
    hidden = Hidden(torch.zeros(ROWS, TOKENS, 1))
    hidden = hidden._replace(valid=valid) if marks in ("padding", "both") else hidden
    hidden = hidden._replace(segments=segments) if marks in ("segments", "both") else hidden
    return hidden, (q, k, v)


def whole(hidden: Hidden, q: Tensor, k: Tensor, v: Tensor, *, mask: Mask) -> Tensor:
    """Attention over everything, by the rule written out."""
    seen = torch.zeros(ROWS, TOKENS, TOKENS, dtype=torch.bool)
    for row, i, j in product(range(ROWS), range(TOKENS), range(TOKENS)):
        near: Any = j <= i and (mask.window is None or i - j < mask.window)
        near = near or (mask.prefix is not None and i < mask.prefix[row] and j < mask.prefix[row])
        near = near and (hidden.valid is None or bool(hidden.valid[row, j]))
        near = near and (hidden.segments is None or bool(hidden.segments[row, i] == hidden.segments[row, j]))
        seen[row, i, j] = near or i == j
    score = (q @ k.mT / math.sqrt(WIDTH)).masked_fill(~seen[:, None], float("-inf"))
    return score.softmax(-1) @ v


def step(
    kept: Kept, hidden: Hidden, parts: tuple[Tensor, ...], start: int, stop: int, mask: Mask
) -> tuple[Tensor, Any]:
    """Attention of tokens start … stop, through the cache."""
    q, k, v = (part[:, :, start:stop] for part in parts)
    now = hidden.each(lambda part: part[:, start:stop])
    read, kept = kept.cache.add(kept, torch.cat([k, v], 1), now)
    score = q @ read.k.mT / math.sqrt(WIDTH)
    seen = kept.cache.seen(read, kept, now, mask)
    score = score if seen is None else score.masked_fill(~seen, float("-inf"))
    return score.softmax(-1) @ read.v, kept


def bound(error: float, q: Tensor, k: Tensor, v: Tensor) -> float:
    """By how much attention may differ where keys and values differ by `error` of the largest of their vector."""
    score = error * float((q.abs().sum(-1).amax() * k.abs().amax()) / math.sqrt(WIDTH))
    return (error + (math.exp(2 * score) - 1) * (1 + error)) * float(v.abs().amax()) + 1e-12


def check_attention(config: Any) -> None:
    """In pieces of any length, with padding in front, segments and a prefix: what attention over all keys gives, within what
    the cache says of its error."""
    cache = config.build(WINDOW)
    prefix = torch.tensor([4, 0, 7])
    for marks, pieces, before in product(MARKS, PIECES, (None, prefix)):
        if before is None or pieces[0] >= 7:
            mask = Mask(causal=True, window=WINDOW, prefix=before)
            hidden, parts = given(marks)
            kept, start, found = cache.start(TOKENS), 0, []
            for size in pieces:
                y, kept = step(kept, hidden, parts, start, start + size, mask)
                found.append(y)
                start += size
            real = torch.ones(ROWS, TOKENS, dtype=torch.bool) if hidden.valid is None else hidden.valid
            wrong = (torch.cat(found, 2) - whole(hidden, *parts, mask=mask)).transpose(1, 2)[real].abs().amax()
            most = bound(cache.error, *parts)
            expect(wrong <= most, f"in pieces of {pieces} with {marks}: off by {wrong:.1e}, more than {most:.1e}")


def check_error(config: Any) -> None:
    """Each number that is read is within the error that the cache states, also of vectors of 0 and of any size."""
    cache = config.build(WINDOW)
    for dtype, scale in product((torch.float64, torch.float32), (0.0, 1e-30, 1.0, 1e30)):
        x = torch.randn(ROWS, HEADS, TOKENS, WIDTH, dtype=dtype) * scale
        read = cache.decode(cache.encode(x), dtype)
        expect(read.dtype == dtype, f"gives {read.dtype} for {dtype}")
        most = (cache.error + 4 * torch.finfo(dtype).eps * bool(cache.error)) * x.abs().amax(-1, keepdim=True)
        expect(((read - x).abs() <= most).all(), f"numbers of size {scale:g} in {dtype} differ by more than it states")


def check_memory(config: Any) -> None:
    """Memory is taken in the first step, as many slots as it says, and never again; what a window shows always fits."""
    cache = config.build(WINDOW)
    hidden, parts = given("both")
    kept = step(cache.start(TOKENS), hidden, parts, 0, 2, Mask(True, WINDOW))[1]
    expect(cache.slots(TOKENS) >= min(WINDOW, TOKENS), "has no room for what the window shows")
    before = [(leaf.data_ptr(), leaf.shape) for leaf in tree_leaves(kept) if isinstance(leaf, Tensor)]
    for slots in (leaf.shape[2] for leaf in kept.vectors):
        expect(slots == cache.slots(TOKENS), f"holds {slots} slots, and says {cache.slots(TOKENS)}")
    for start in range(2, TOKENS):
        kept = step(kept, hidden, parts, start, start + 1, Mask(True, WINDOW))[1]
    after = [(leaf.data_ptr(), leaf.shape) for leaf in tree_leaves(kept) if isinstance(leaf, Tensor)]
    expect(before == after, "takes memory after the first step")


def check_full(config: Any) -> None:
    """More tokens than it was started for are refused, and taking back more than there are."""
    kept = config.build(WINDOW).start(4)
    hidden, parts = given("nothing")
    for action in (lambda: step(kept, hidden, parts, 0, 5, Mask(True)), lambda: kept.cache.rewind(kept, 1)):
        try:
            action()
        except ValueError:
            continue
        expect(False, "takes more than there is room for, or gives back more than there is")


def check_rewind(config: Any) -> None:
    """After tokens were taken back (None where that cannot be), others in their place give what they give without them."""
    cache, mask = config.build(WINDOW), Mask(causal=True, window=WINDOW)
    for marks, used, count in product(MARKS, (1, 3, WINDOW, 12), (0, 1, 3)):
        hidden, parts = given(marks)
        other = tuple(part.flip(0) for part in parts)
        kept = cache.start(TOKENS)
        for start in range(used):
            kept = step(kept, hidden, parts, start, start + 1, mask)[1]
        plain = tree_map_only(Tensor, Tensor.clone, kept)
        for start in range(used, used + count):
            kept = step(kept, hidden, other, start, start + 1, mask)[1]
        before = cache.rewind(kept, count)
        expect(before is not None or used + count > WINDOW, f"cannot take back {count} of {used + count} tokens")
        if before is not None:
            found = step(before, hidden, parts, used, used + 2, mask)[0]
            wanted = step(plain, hidden, parts, used, used + 2, mask)[0]
            expect(torch.equal(found, wanted), f"after {count} of {used + count} tokens were taken back, it differs")
