"""What a mixer says of itself by formula: FLOPs, what it keeps for the backward pass, how large its state is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from sevenfold.conformance._kit import TOKENS, Failed, counted, expect, saved_numbers
from sevenfold.conformance._mixers import MEMORY, ROWS, continuing, given, made, masks, noise, side
from sevenfold.core.types import Mask


def check_flops(config: Any) -> None:
    """The formula agrees with PyTorch's counter."""
    mixer = made(config, torch.float32)
    hidden = given(mixer, noise(dtype=torch.float32))
    wanted = counted(lambda: mixer(hidden, masks(mixer)[0]))
    found = ROWS * mixer.flops(TOKENS, side(mixer, hidden)) + mixer.flops_once(TOKENS)
    expect(found == wanted, f"flops says {found:,}, and {wanted:,} were counted")


def check_kept(config: Any) -> None:
    """`kept` says within 10 % how many numbers autograd keeps for one more row of 64 tokens under a causal mask."""
    mixer, kept = made(config, torch.float32), []
    for rows in (2, 4):
        hidden = given(mixer, noise(rows, 64, torch.float32).requires_grad_())
        beside = [leaf for leaf in tree_leaves(hidden) if isinstance(leaf, Tensor)]
        beside += [*mixer.parameters(), *mixer.buffers()]
        kept.append(saved_numbers(partial(mixer, hidden, masks(mixer)[0]), beside))
    wanted = (kept[1] - kept[0]) / 2
    found = told(partial(mixer.kept, 64, side(mixer, hidden)), "kept")
    expect(abs(found - wanted) <= 0.1 * wanted, f"kept says {found:,} numbers, and autograd keeps {wanted:,.0f}")


def check_cached(config: Any) -> None:
    """`cached` says exactly how many numbers the state of one row holds."""
    mixer = continuing(config).float()
    for tokens in (TOKENS, 64):
        hidden = given(mixer, noise(1, tokens, torch.float32))
        state = mixer.step(hidden, mixer.start(1, tokens, hidden.x), Mask(causal=True))[1]
        wanted = sum(
            leaf.numel() for leaf in tree_leaves(state) if isinstance(leaf, Tensor) and leaf.is_floating_point()
        )
        found = told(partial(mixer.cached, MEMORY if mixer.crosses else tokens), "cached")
        expect(found == wanted, f"cached says {found:,} numbers for {tokens} tokens, and the state holds {wanted:,}")


def told(formula: Callable[[], int], name: str) -> int:
    """What a formula says; Failed if the part has none."""
    try:
        return formula()
    except NotImplementedError:
        raise Failed(f"does not say {name}: write the method `{name}`") from None
