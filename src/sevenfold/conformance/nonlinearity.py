"""What every nonlinearity must do: see the contract in sevenfold.blocks.nonlinearity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sevenfold.conformance._kit import WIDTH, compiled, counted, expect, finite, gradients, in_bf16, lively, near

ROWS, TOKENS = 2, 6


def made(config: Any) -> Any:
    """One with lively weights."""
    torch.manual_seed(1)
    return lively(config.build(WIDTH)).eval()


def noise() -> Tensor:
    """Tokens."""
    return torch.randn(ROWS, TOKENS, WIDTH)


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
    """`out` is the last projection, a matrix to the trunk's width."""
    feed = made(config)
    expect(isinstance(getattr(feed, "out", None), nn.Module), "has no module `out`")
    expect(feed.out.weight.shape[-2] == WIDTH, f"out.weight is {list(feed.out.weight.shape)}, not [{WIDTH} …]")
    with torch.no_grad():
        for parameter in feed.out.parameters():
            parameter.zero_()
    expect(not feed(noise()).any(), "is not 0 when `out` is: something comes after it")


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


def check_flops(config: Any) -> None:
    """The formula agrees with PyTorch's counter."""
    feed, x = made(config), noise()
    found, wanted = feed.flops(ROWS * TOKENS), counted(lambda: feed(x))
    expect(found == wanted, f"flops says {found:,}, and {wanted:,} were counted")
