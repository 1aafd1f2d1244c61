"""What every mixer must do: see the contract in sevenfold.blocks.mixing. In float64, where equality is claimed."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import torch
from torch import nn

from sevenfold.blocks.position import Position
from sevenfold.conformance import trunk
from sevenfold.conformance._cut import same_cut
from sevenfold.conformance._formulas import check_cached, check_flops, check_kept  # noqa: F401
from sevenfold.conformance._kit import (
    TOKENS,
    WIDTH,
    Skipped,
    compiled,
    expect,
    finite,
    gradients,
    in_bf16,
    near,
)
from sevenfold.conformance._mixers import (
    MEMORY,
    POSITIONS,
    ROWS,
    alone,
    continuing,
    dependence,
    given,
    made,
    masks,
    noise,
)
from sevenfold.conformance._pairs import (  # noqa: F401
    check_lines,
    check_order,
    check_rotation_and_shift,
    check_without_frames,
)
from sevenfold.conformance._states import (  # noqa: F401
    check_copy,
    check_rewind,
    check_rows,
    check_state,
    check_step,
)
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds


def ragged(config: Any) -> Any:
    """A mixer whose rows may be of any length; skipped otherwise."""
    mixer = made(config)
    if "grid" in mixer.needs:
        raise Skipped("its tokens are a whole grid")
    return mixer


def check_cut(config: Any) -> None:
    """Where it says that it can be cut by heads, its parts give together what it gives, and so do their gradients."""
    whole = made(config)
    if whole.pairs:
        raise Skipped("it updates pairs")
    for position, mask in product(POSITIONS, masks(whole)):
        hidden = given(whole, noise(), position)
        same_cut(whole, (hidden, mask))


def check_shape(config: Any) -> None:
    """[b n d] → [b n d] (of a pair [b n n p] → [b n n p]), finite, also for a single token."""
    mixer = made(config)
    for mask, tokens in product(masks(mixer), (1, 2, TOKENS)):
        x = noise(tokens=tokens)
        hidden = given(mixer, x)
        wanted = hidden.pair.shape if mixer.pairs and hidden.pair is not None else x.shape
        y = mixer(hidden, mask)
        expect(y.shape == wanted, f"gives {list(y.shape)} for {list(wanted)}")
        finite(y, f"the output for {tokens} tokens")


def check_out(config: Any) -> None:
    """`out` is the last projection, a matrix to the trunk's width."""
    mixer = made(config)
    expect(isinstance(getattr(mixer, "out", None), nn.Module), "has no module `out`")
    expect(mixer.out.weight.shape[0] == WIDTH, f"out.weight is {list(mixer.out.weight.shape)}, not [{WIDTH} …]")
    with torch.no_grad():
        for parameter in mixer.out.parameters():
            parameter.zero_()
    y = mixer(given(mixer, noise()), masks(mixer)[0])
    expect(not y.any(), "is not 0 when `out` is: something comes after it")


def check_causality(config: Any) -> None:
    """Causal: the gradient of a token with respect to every later one is 0 (to rounding: see `dependence`)."""
    mixer = continuing(config)
    for position, mask in product(POSITIONS, masks(mixer, causal=True)):
        reach = dependence(mixer, position, mask)
        later = torch.ones_like(reach).triu(1).bool()
        expect(not reach[later].any(), f"with {position}, a token depends on later ones")
        expect(mixer.narrow or reach.diagonal().all(), f"with {position}, a token does not depend on itself")
        if mixer.crosses:
            expect(not reach[later.T].any(), f"with {position}, a cross mixer mixes its own tokens")


def check_masks(config: Any) -> None:
    """Windows, prefixes, segments: a token depends on exactly those that it may look at, by the rule written out; a narrow
    mixer, and one without weights, on no other."""
    mixer = ragged(config)
    if mixer.crosses or mixer.pairs:
        raise Skipped("reads another trunk" if mixer.crosses else "gives pairs")
    exact = not mixer.narrow and mixer.weights(given(mixer, noise())) is not None
    prefixes = (None, 4) if "prefix" in mixer.heeds else (None,)
    segments = torch.tensor([[0] * 5 + [1] * 3 + [2] * 4])
    for mask, prefix, packed in product(masks(mixer), prefixes, (None, segments)):
        wanted = torch.zeros(TOKENS, TOKENS, dtype=torch.bool)
        for i, j in product(range(TOKENS), repeat=2):
            seen = (j <= i or not mask.causal) and (mask.window is None or abs(i - j) < mask.window)
            seen = seen or (prefix is not None and i < prefix and j < prefix)
            wanted[i, j] = seen and (packed is None or bool(packed[0, i] == packed[0, j]))
        described = mask._replace(prefix=None if prefix is None else torch.tensor([prefix]))
        found = dependence(mixer, "none", described, segments=packed)
        expect(not (found & ~wanted).any(), f"under {described}, a token depends on one that it may not look at")
        expect(not exact or not (wanted & ~found).any(), f"under {described}, a token ignores one that it may look at")


def check_padding(config: Any) -> None:
    """Padding left and right, and other rows of the batch, change nothing."""
    mixer = ragged(config)
    lengths, most = (TOKENS, 5, 9), TOKENS + 2
    x, where = noise(tokens=most) * 3, torch.arange(most)
    for position, mask, end in product(POSITIONS, masks(mixer), ("right", "left")):
        firsts = [0 if end == "right" else most - n for n in lengths]
        valid = torch.stack([(where >= first) & (where < first + n) for first, n in zip(firsts, lengths)])
        coords = torch.where(valid, where - torch.tensor(firsts)[:, None], 77)[..., None]
        whole = given(mixer, x, position, coords=coords, valid=valid)
        y = mixer(whole, mask)
        for row, (first, n) in enumerate(zip(firsts, lengths)):
            found = y[row, first : first + n]
            if mixer.pairs:
                found = found[:, first : first + n]
            wanted = mixer(alone(whole, row, first, first + n), mask)[0]
            near(found, wanted, f"with {position}, padded on the {end}")


def check_nothing_but_padding(config: Any) -> None:
    """A row of padding gives finite numbers and gradients; a cross mixer with nothing to read gives 0."""
    mixer = made(config)
    valid = torch.ones(2, TOKENS, dtype=torch.bool)
    valid[1] = False
    for mask in masks(mixer):
        hidden = given(mixer, noise(rows=2), valid=valid)
        if mixer.crosses:
            hidden = hidden._replace(memory=hidden.memory._replace(valid=valid[:, :MEMORY]))
        y = mixer(hidden, mask)
        finite(y, "the output")
        gradients(mixer, y)
        if mixer.crosses and not mixer.joins:
            expect(not y[1].any(), "a row whose memory is all padding does not get 0")
            expect(y[0].any(), "a row with a memory gets 0")


def check_segments(config: Any) -> None:
    """Documents packed into one row give what each gives alone."""
    mixer = ragged(config)
    if mixer.crosses:
        raise Skipped("reads another trunk")
    lengths, ends = (5, 3, 4), (5, 8, TOKENS)
    segments = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    coords = torch.cat([torch.arange(n) for n in lengths])[None, :, None]
    for position, mask in product(POSITIONS, masks(mixer)):
        whole = given(mixer, noise(rows=1), position, coords=coords, segments=segments)
        y = mixer(whole, mask)[0]
        for n, end in zip(lengths, ends):
            found = y[end - n : end, end - n : end] if mixer.pairs else y[end - n : end]
            near(found, mixer(alone(whole, 0, end - n, end), mask)[0], f"packed, with {position}")


def check_weights(config: Any) -> None:
    """Weights sum to 1, are 0 where nothing may be seen, give forward again, and looking at them changes nothing."""
    mixer = made(config)
    valid = torch.ones(ROWS, TOKENS, dtype=torch.bool)
    valid[1, -3:] = False
    for position, mask in product(POSITIONS, masks(mixer)):
        hidden = given(mixer, noise(), position, valid=valid)
        before = mixer(hidden, mask)
        weights = mixer.weights(hidden, mask)
        if weights is None:
            raise Skipped("has no weights")
        columns = MEMORY + TOKENS * mixer.joins if mixer.crosses else TOKENS
        expect(weights.shape[0] == ROWS and weights.shape[2:] == (TOKENS, columns), f"weights {list(weights.shape)}")
        expect((weights >= 0).all(), "a weight is negative")
        near(weights.sum(-1), torch.ones_like(weights.sum(-1)), f"the sum of a row, with {position}")
        near(mixer.weights(hidden, mask, rows=torch.tensor([4, 2])), weights[:, :, [4, 2]], "the weights of two rows")
        expect(torch.equal(before, mixer(hidden, mask)), "looking at the weights changes the output")
        values = mixer.values(hidden)
        if values is not None:
            y = mixer.out((weights @ values).transpose(1, 2).flatten(2))
            near(y[valid], before[valid], f"weights times values, with {position}")


def check_gradients(config: Any) -> None:
    """Every trainable parameter gets a gradient."""
    mixer = made(config)
    gradients(mixer, mixer(given(mixer, noise()), masks(mixer)[-1]))


def check_bf16(config: Any) -> None:
    """Under autocast it stays near float32."""
    mixer = made(config, torch.float32)
    for position, mask in product(POSITIONS, masks(mixer)):
        hidden = given(mixer, noise(dtype=torch.float32), position)
        in_bf16(partial(mixer, hidden, mask), f"bf16 with {position}")


def check_compiles(config: Any) -> None:
    """It compiles whole, also with padding, segments and positions, and gives the same."""
    mixer = made(config, torch.float32)
    valid = torch.ones(ROWS, TOKENS, dtype=torch.bool)
    valid[1, -3:] = False
    cases: list[tuple[str, dict[str, Any]]] = [
        ("none", {}),
        ("rotary", {"valid": valid}),
        ("alibi", {"segments": valid.long()}),
    ]
    for (position, parts), mask in product(cases, masks(mixer)[:2]):
        hidden = given(mixer, noise(dtype=torch.float32), position, **parts)
        near(compiled(mixer)(hidden, mask), mixer(hidden, mask), f"compiled, with {position}")


def check_repeatable(config: Any) -> None:
    """The same seed builds the same mixer, and the same input gives the same output."""
    first, second = made(config), made(config)
    hidden = given(first, noise())
    mask = masks(first)[0]
    expect(torch.equal(first(hidden, mask), second(hidden, mask)), "differs from itself")


def check_in_a_trunk(config: Any) -> None:
    """In a trunk with a position of every sort (added, turned, on scores, none): compiles whole (a variant: with one sort; `compiles`
    has it with the others), steps, saves and loads, starts near log(ids). Positions of one sort are checked with attention."""
    if config.part.needs or config.part.pairs or not config.part.continues:
        raise Skipped("needs a trunk of its own kind")
    fitting: set[tuple[bool, ...]] = set()
    plain = config == type(config)()
    for kind in kinds("position"):
        position = find("position", kind)
        sort = tuple(getattr(position, name) is not getattr(Position, name) for name in ("embed", "angles", "bias"))
        if sort not in fitting:
            try:
                trunk.check(config, position.Config(), compiles=plain or not fitting)
                fitting.add(sort)
            except ConfigError as error:
                trunk.one_line(error)
    expect(fitting, "goes together with no position")
