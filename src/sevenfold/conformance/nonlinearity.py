"""What every nonlinearity must do: see the contract in sevenfold.blocks.nonlinearity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sevenfold.conformance._cut import same_cut
from sevenfold.conformance._kit import (
    WIDTH,
    compiled,
    counted,
    expect,
    finite,
    gradients,
    in_bf16,
    lively,
    near,
    saved_numbers,
)

ROWS, TOKENS = 2, 6


def made(config: Any) -> Any:
    """One with lively weights."""
    torch.manual_seed(1)
    return lively(config.build(WIDTH)).eval()


def noise() -> Tensor:
    """Tokens."""
    return torch.randn(ROWS, TOKENS, WIDTH)


def check_cut(config: Any) -> None:
    """Where it says that it can be cut by channels, its parts give together what it gives, and so do their gradients."""
    same_cut(made(config).double(), (noise().double(),))


def check_shape(config: Any) -> None:
    """[b n d] → [b n d], finite also for large values."""
    feed, x = made(config), noise()
    expect(feed(x).shape == x.shape, f"gives {list(feed(x).shape)} for {list(x.shape)}")
    finite(feed(x * 100), "the output for large values")


def check_token_by_token(config: Any) -> None:
    """What a token becomes does not depend on the other tokens."""
    feed, x = made(config).double(), noise().double()
    near(feed(x[:, 2:4]), feed(x)[:, 2:4], "two tokens on their own")
    near(feed(x.flip(0, 1)), feed(x).flip(0, 1), "tokens in another order")


def check_not_linear(config: Any) -> None:
    """It is no linear map."""
    feed, x = made(config), noise()
    middle = (feed(x) + feed(-x)) / 2 - feed(torch.zeros_like(x))
    expect((middle.abs() > 1e-3).any(), "is a linear map")


def check_out(config: Any) -> None:
    """`outputs` are the last projections, matrices to the trunk's width: where they are 0, it gives 0."""
    feed = made(config)
    expect(feed.outputs(), "has no outputs")
    for out in feed.outputs():
        expect(out.weight.shape[-2] == WIDTH, f"an output's weight is {list(out.weight.shape)}, not [{WIDTH} …]")
        with torch.no_grad():
            for parameter in out.parameters():
                parameter.zero_()
    expect(not feed(noise()).any(), "is not 0 when `outputs` are: something comes after them")


def check_padding(config: Any) -> None:
    """What stands in padding changes no valid token, and no penalty."""
    feed, x, valid = made(config).double().train(), noise().double(), torch.ones(ROWS, TOKENS, dtype=torch.bool)
    valid[1, 3:] = False
    found = []
    for given in (x, torch.where(valid[..., None], x, 5.0)):
        feed.penalty = None
        found.append((feed(given, valid)[valid], feed.penalty))
    near(found[1][0], found[0][0], "valid tokens beside other padding")
    if found[0][1] is not None:
        near(found[1][1], found[0][1], "the penalty beside other padding")
        expect(found[0][1][1] == valid.sum(), f"the penalty is over {found[0][1][1]:g} tokens, not {valid.sum()}")


def check_penalty(config: Any) -> None:
    """A penalty is left by training passes only, adds up, and can be differentiated."""
    feed, x = made(config), noise()
    feed(x)
    expect(feed.penalty is None, "leaves a penalty in evaluation")
    feed.train()
    feed(x)
    once = feed.penalty
    if once is not None:
        expect(once.shape == (2,) and once[1] == ROWS * TOKENS, "the penalty is not (sum over tokens, tokens)")
        expect(once.requires_grad, "the penalty has no gradient")
        feed(x)
        near(feed.penalty, 2 * once, "the penalty of two passes")


def check_gradients(config: Any) -> None:
    """Every trainable parameter gets a gradient."""
    feed = made(config)
    gradients(feed, feed(torch.randn(8, 16, WIDTH)))


def check_bf16(config: Any) -> None:
    """Under autocast it stays near float32."""
    feed, x = made(config), noise()
    in_bf16(lambda: feed(x))


def check_compiles(config: Any) -> None:
    """It compiles whole, and gives the same."""
    feed, x = made(config), noise()
    near(compiled(feed)(x), feed(x), "compiled")
    feed.train()
    y, left = compiled(feed)(x), feed.penalty
    near(y, feed(x), "compiled, in training")
    if left is not None:
        near(feed.penalty, 2 * left, "the penalty of a compiled pass and another")


def check_flops(config: Any) -> None:
    """The formula agrees with PyTorch's counter."""
    feed, x = made(config), noise()
    found, wanted = feed.flops(ROWS * TOKENS), counted(lambda: feed(x))
    expect(found == wanted, f"flops says {found:,}, and {wanted:,} were counted")


def check_kept(config: Any) -> None:
    """The formula of kept numbers is within 10 % of what autograd keeps in float32."""
    feed, x = made(config).train(), torch.randn(1, 256, WIDTH).requires_grad_()
    found, wanted = feed.kept(256), saved_numbers(lambda: feed(x), [x, *feed.parameters()])
    expect(abs(found - wanted) <= 0.1 * wanted, f"kept says {found:,}, and {wanted:,.0f} are kept")
