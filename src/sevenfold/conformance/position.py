"""What every position scheme must do: see the contract in sevenfold.blocks.position."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sevenfold.blocks.mixing.attention import turn
from sevenfold.conformance import trunk
from sevenfold.conformance._kit import Failed, Skipped, compiled, expect, finite, gradients, near
from sevenfold.core.errors import ConfigError, SevenfoldError
from sevenfold.core.part import find

WIDTH, HEAD, HEADS, HEADS_MOST = 48, 24, 6, 8
FAR = 1_000_000


def built(config: Any) -> list[Any]:
    """The scheme for each number of axes (0 to 3) that it takes; the others it must refuse with a ConfigError."""
    found = []
    for axes in range(4):
        try:
            found.append(config.build(WIDTH, axes, HEADS_MOST))
        except ConfigError as error:
            trunk.one_line(error)
    expect(found, "takes neither 0, 1, 2 nor 3 axes")
    return found


def head(scheme: Any) -> int:
    """The width of the heads that it is asked to turn."""
    return scheme.turned_width or HEAD


def places(scheme: Any, rows: int = 2, tokens: int = 5, most: int | None = None) -> Tensor:
    """Coordinates [b n c] within what the scheme reaches."""
    return torch.randint(0, min(most or 50, scheme.reach or FAR), (rows, tokens, scheme.axes))


def check_axes(config: Any) -> None:
    """It takes some number of axes, and refuses the others in one line."""
    built(config)


def check_embed(config: Any) -> None:
    """What is added is [b n width], finite, of moderate size, and tells places apart."""
    given = False
    for scheme in built(config):
        coords = places(scheme, most=10)
        added = scheme.embed(coords)
        if added is not None:
            given = True
            expect(added.shape == (2, 5, WIDTH), f"adds {list(added.shape)} to [2 5 {WIDTH}]")
            finite(added, "what is added")
            expect(float(added.detach().abs().max()) < 10, "what is added is larger than 10")
            near(scheme.embed(coords.flip(1)), added.flip(1), "what is added depends on the order of tokens")
            coords = torch.zeros(1, 2, scheme.axes, dtype=torch.long)
            coords[:, 1] = 1
            here, there = scheme.embed(coords)[0]
            expect(scheme.axes == 0 or not torch.equal(here, there), "adds the same at different places")
    if not given:
        raise Skipped("adds nothing")


def check_rotation(config: Any) -> None:
    """Turning keeps norms, and scores depend on differences of coordinates only, also far out."""
    given = False
    for scheme in built(config):
        coords = places(scheme)
        width = head(scheme)
        turned = scheme.angles(coords, width)
        if turned is not None:
            given = True
            cos, sin = turned
            expect(cos.shape == sin.shape == (2, 5, width // 2), f"angles of {list(cos.shape)}")
            expect(cos.dtype == sin.dtype == torch.float32, f"angles in {cos.dtype}")
            size = cos.square() + sin.square()
            near(size, torch.full_like(cos, float(size[0, 0, 0])), "cos^2 + sin^2, of all pairs and places")
            q, k = torch.randn(2, 2, HEADS, 5, width)
            near(turn(q, cos, sin).norm(dim=-1), q.norm(dim=-1) * size[0, 0, 0].sqrt(), "the norm after turning")
            wanted = _scores(scheme, q, k, coords)
            for shift in (1, 7, FAR):
                near(_scores(scheme, q, k, coords + shift), wanted, f"scores {shift} places on")
            moved = coords.clone()
            moved[:, 0] += 1
            expect(not torch.equal(_scores(scheme, q, k, moved), wanted), "scores do not depend on differences")
    if not given:
        raise Skipped("turns nothing")


def _scores(scheme: Any, q: Tensor, k: Tensor, coords: Tensor) -> Tensor:
    """Scores [b h n n] of queries and keys at coordinates."""
    cos, sin = scheme.angles(coords, head(scheme))
    return turn(q, cos, sin) @ turn(k, cos, sin).transpose(-1, -2) / q.shape[-1] ** 0.5


def check_bias(config: Any) -> None:
    """The bias is [b heads n m], finite, a function of differences, for any number of heads."""
    given = False
    for scheme in built(config):
        query, key = places(scheme, tokens=3), places(scheme, tokens=5)
        for heads in (1, 6, 8):
            bias = scheme.bias(query, key, heads)
            if bias is not None:
                given = True
                expect(scheme.biased, "gives a bias, but `biased` is False")
                expect(bias.shape == (2, heads, 3, 5), f"a bias of {list(bias.shape)} for {heads} heads")
                finite(bias, "the bias")
                near(scheme.bias(query + 9, key + 9, heads), bias, "the bias 9 places on")
                near(scheme.bias(query, key.flip(1), heads), bias.flip(-1), "the bias of keys in another order")
    if not given:
        raise Skipped("has no bias")


def check_far_away(config: Any) -> None:
    """A place that it cannot tell is refused with an error of ours, or it can tell it."""
    for scheme in built(config):
        if scheme.reach is not None:
            edge = torch.full((1, 1, scheme.axes), scheme.reach)
            for wrong in (edge, -1 - 0 * edge, edge + FAR):
                try:
                    scheme.embed(wrong)
                except SevenfoldError as error:
                    expect("\n" not in str(error), f"an error of more than one line: {error}")
                else:
                    raise Failed(f"reaches {scheme.reach}, and takes {int(wrong.max())} without a word")
            finite(scheme.embed(edge - 1), "what is added at the last place")
        elif (added := scheme.embed(places(scheme, most=FAR))) is not None:
            finite(added, "what is added far out")


def check_gradients(config: Any) -> None:
    """Every trainable parameter gets a gradient."""
    for scheme in built(config):
        if not list(scheme.parameters()):
            raise Skipped("nothing in it is trained")
        if scheme.axes == 0:
            continue
        coords = places(scheme)
        outputs = [
            scheme.embed(coords),
            scheme.bias(coords, coords, HEADS),
            *(scheme.angles(coords, head(scheme)) or ()),
            scheme.class_row(),
        ]
        gradients(scheme, torch.cat([output.flatten() for output in outputs if output is not None]))


def check_compiles(config: Any) -> None:
    """It compiles whole, and gives the same."""
    for scheme in built(config):
        coords = places(scheme)
        calls = [
            (scheme.embed, (coords,)),
            (scheme.angles, (coords, head(scheme))),
            (scheme.bias, (coords, coords, HEADS)),
        ]
        for function, args in calls:
            wanted, found = function(*args), compiled(function)(*args)
            expect((wanted is None) == (found is None), "gives something else when compiled")
            if wanted is not None:
                near(torch.stack([*found]), torch.stack([*wanted]), "compiled")


def check_in_a_trunk(config: Any) -> None:
    """In a trunk with attention: compiles whole, steps, saves and loads, starts near log(ids)."""
    try:
        trunk.check(find("mixing", "attention").Config(), config)
    except ConfigError as error:
        raise Skipped(str(error)) from None
