"""What mixers of pairs, frames and grids must do besides: order, rotation and shift do not matter, lines keep apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sevenfold.conformance._kit import TOKENS, WIDTH, Skipped, expect, near
from sevenfold.conformance._mixers import ROWS, given, made, masks, noise
from sevenfold.core.types import Hidden


def check_order(config: Any) -> None:
    """Of pairs and frames: tokens in another order give the same in that order."""
    mixer = made(config)
    if not mixer.pairs and not {"pair", "frames"} & mixer.needs:
        raise Skipped("needs neither pairs nor frames")
    hidden, mask, order = given(mixer, noise()), masks(mixer)[-1], torch.randperm(TOKENS)
    other = hidden.each(lambda part: part[:, order])
    if hidden.pair is not None:
        other = other._replace(pair=hidden.pair[:, order][:, :, order])
    y = mixer(hidden, mask)[:, order]
    near(mixer(other, mask), y[:, :, order] if mixer.pairs else y, "tokens in another order")


def check_rotation_and_shift(config: Any) -> None:
    """Of frames: all moved by one rotation and shift, also far away, give the same; where they stand matters."""
    mixer, hidden = _framed(config)
    mask = masks(mixer)[-1]
    wanted = mixer(hidden, mask)
    axes = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    axes = axes * torch.linalg.det(axes)
    for shift in (1.0, 100.0):
        near(mixer(_moved(hidden, axes, shift), mask), wanted, f"all frames turned, and shifted by {shift:g} Å")
    single, origin = mixer.float(), hidden.frames
    small = hidden._replace(x=hidden.x.float(), frames=None if origin is None else origin.float())
    if hidden.pair is not None:
        small = small._replace(pair=hidden.pair.float())
    near(single(_moved(small, axes, 10.0), mask), single(small, mask), "all frames turned and shifted, in float32")
    assert origin is not None
    one = origin.float().clone()
    one[:, 0, 3] += 5
    changed = (single(small._replace(frames=one), mask) - single(small, mask))[:, 1:].abs().max()
    expect(changed > 1e-4, "other tokens do not see that one stands elsewhere")


def check_without_frames(config: Any) -> None:
    """Tokens without a frame get 0 and change nothing; where no token has one, all is 0 and finite."""
    mixer, hidden = _framed(config)
    mask, frames = masks(mixer)[-1], hidden.frames
    assert frames is not None
    there = torch.arange(TOKENS) % 3 != 1
    some = hidden._replace(frames=frames * there[:, None, None])
    y = mixer(some, mask)
    expect(not y[:, ~there].any(), "a token without a frame gets something")
    other = some._replace(x=torch.where(there[:, None], some.x, torch.randn_like(some.x)))
    near(mixer(other, mask), y, "other tokens without a frame")
    expect(not mixer(hidden._replace(frames=frames * 0), mask).any(), "without any frame it does not give 0")


def check_lines(config: Any) -> None:
    """Of a grid: a token depends on whole lines that it is in, or the square around it, and nothing else, and on nothing that
    is padding."""
    mixer = made(config)
    if "grid" not in mixer.needs or mixer.pairs:
        raise Skipped("does not mix a grid")
    hidden, mask = given(mixer, noise(rows=1)), masks(mixer)[-1]
    assert hidden.grid is not None
    rows, columns = hidden.grid
    reach = _reach(mixer, hidden, mask)
    where = torch.arange(TOKENS)
    line = {"row": where // columns, "column": where % columns}
    same = [number[:, None] == number[None] for number in line.values()]
    away = torch.stack([(number[:, None] - number[None]).abs() for number in line.values()]).amax(0)
    squares = [away <= side for side in range(max(rows, columns))]
    expect(
        any(torch.equal(reach, seen) for seen in (*same, *squares)),
        "a token does not depend on just its row, its column or the square around it",
    )
    valid = torch.rand(ROWS, TOKENS) < 0.7
    whole = given(mixer, noise(), valid=valid)
    other = whole._replace(x=torch.where(valid[..., None], whole.x, torch.randn_like(whole.x)))
    near(mixer(other, mask)[valid], mixer(whole, mask)[valid], "other padding")


def _framed(config: Any) -> tuple[Any, Hidden]:
    mixer = made(config)
    if "frames" not in mixer.needs:
        raise Skipped("needs no frames")
    return mixer, given(mixer, noise())


def _moved(hidden: Hidden, axes: Tensor, shift: float) -> Hidden:
    """All frames turned by `axes` [3 3] and shifted by as many Å along each axis."""
    frames = hidden.frames
    assert frames is not None
    turned, axes = frames[..., :3, :], axes.to(frames)
    origin = frames[..., 3:, :] @ axes.T + shift
    return hidden._replace(frames=torch.cat([axes @ turned, origin], -2))


def _reach(mixer: Any, hidden: Hidden, mask: Any) -> Tensor:
    """[n n]: whether token i of the output depends on token j of the input, by gradient."""
    x = hidden.x.clone().requires_grad_()
    y, weight = mixer(hidden._replace(x=x), mask), torch.randn(WIDTH, dtype=x.dtype)
    rows = [torch.autograd.grad((y[0, i] * weight).sum(), x, retain_graph=True)[0][0] for i in range(len(y[0]))]
    return torch.stack(rows).ne(0).any(-1)
