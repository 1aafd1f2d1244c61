"""What a mixer's state must do: stepping through a sequence gives what one pass gives, and states can be taken, copied, taken back."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from sevenfold.conformance._kit import TOKENS, Skipped, expect, near
from sevenfold.conformance._mixers import POSITIONS, ROWS, continuing, cut, given, masks, noise, picked, stepped


def check_step(config: Any) -> None:
    """Token by token, and in pieces of uneven length, gives what one pass gives; padding in front and segments too."""
    mixer = continuing(config)
    valid = torch.ones(ROWS, TOKENS, dtype=torch.bool)
    valid[1, :3] = False
    segments = (torch.arange(TOKENS) >= 6).long().expand(ROWS, -1)
    prefixes = (None, torch.tensor([4, 0, 5])) if "prefix" in mixer.heeds else (None,)
    for position, mask, prefix in product(POSITIONS, masks(mixer, causal=True), prefixes):
        described = mask._replace(prefix=prefix)
        cases: list[dict[str, Any]] = [{}, {"valid": valid}, {"segments": segments}]
        for parts in cases:
            x = noise()
            whole = given(mixer, x, position, **parts)
            wanted = mixer(whole, described)
            for sizes in ([5, 1, 4, 2], [TOKENS], *([[1] * TOKENS] if prefix is None else [])):
                found = torch.cat(stepped(mixer, whole, sizes, described)[0], 1)
                real = valid if "valid" in parts else torch.ones_like(valid)
                near(
                    found[real],
                    wanted[real],
                    f"in pieces of {sizes} with {position}{' and ' if parts else ''}{''.join(parts)}",
                )


def check_state(config: Any) -> None:
    """The state after A and then B is the state after both at once."""
    mixer = continuing(config)
    for position, mask in product(POSITIONS, masks(mixer, causal=True)):
        whole = given(mixer, noise(), position)
        first, second = (stepped(mixer, whole, sizes, mask)[1] for sizes in ([5, 4], [9]))
        for a, b in zip(tree_leaves(first), tree_leaves(second), strict=True):
            if isinstance(a, Tensor):
                near(a.double(), b.double(), f"a part of the state, with {position}")
            else:
                expect(a == b, f"a part of the state is {a!r} and {b!r}, with {position}")


def check_rows(config: Any) -> None:
    """The state of some rows, in another order and twice, goes on as these rows do, and leaves the state as it was."""
    mixer = continuing(config)
    index = torch.tensor([2, 0, 2])
    for position, mask in product(POSITIONS, masks(mixer, causal=True)):
        whole = given(mixer, noise(), position)
        wanted = mixer(whole, mask)
        state = mixer.step(cut(whole, 0, 7), mixer.start(ROWS, TOKENS, whole.x), mask)[1]
        chosen = mixer.rows(state, index)
        found = mixer.step(cut(picked(whole, index), 7, TOKENS), chosen, mask)[0]
        near(found, wanted[index, 7:], f"after rows {index.tolist()}, with {position}")
        near(mixer.step(cut(whole, 7, TOKENS), state, mask)[0], wanted[:, 7:], f"beside other rows, with {position}")


def check_copy(config: Any) -> None:
    """A state is a pytree: a copy of its tensors goes on after the state itself went elsewhere."""
    mixer = continuing(config)
    for position, mask in product(POSITIONS, masks(mixer, causal=True)):
        whole, other = given(mixer, noise(), position), given(mixer, noise(), position)
        state = mixer.step(cut(whole, 0, 5), mixer.start(ROWS, TOKENS, whole.x), mask)[1]
        kept = tree_map_only(Tensor, Tensor.clone, state)
        mixer.step(cut(other, 5, 9), state, mask)
        found = mixer.step(cut(whole, 5, TOKENS), kept, mask)[0]
        near(found, mixer(whole, mask)[:, 5:], f"from a copy, with {position}")


def check_rewind(config: Any) -> None:
    """A state that took its last tokens back (where it can) goes on as if they had never been."""
    mixer = continuing(config)
    for position, mask, count in product(POSITIONS, masks(mixer, causal=True), (0, 1, 4)):
        whole, other = given(mixer, noise(), position), given(mixer, noise(), position)
        state = mixer.step(cut(whole, 0, 5), mixer.start(ROWS, TOKENS, whole.x), mask)[1]
        if count:
            state = mixer.step(cut(other, 5, 5 + count), state, mask)[1]
        state = mixer.rewind(state, count)
        expect(count or state is not None, "cannot take back no token at all")
        if state is None:
            raise Skipped("does not keep what was before")
        first, state = mixer.step(cut(whole, 5, 6), state, mask)
        rest, state = mixer.step(cut(whole, 6, TOKENS), state, mask)
        near(
            torch.cat([first, rest], 1),
            mixer(whole, mask)[:, 5:],
            f"after {count} tokens were taken back, with {position}",
        )
