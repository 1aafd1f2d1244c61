"""What every residual must do: see the contract in sevenfold.blocks.residual."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sevenfold.conformance._kit import WIDTH, compiled, expect, finite, gradients, in_bf16, lively, near

ROWS, TOKENS, DEPTH = 3, 5, 4
WEIGHT = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(3)) * WIDTH**-0.5


def made(config: Any, index: int = DEPTH - 1) -> Any:
    """The residual of the last block of four, in evaluation."""
    torch.manual_seed(1)
    return lively(config.build(WIDTH, index, DEPTH), 0.01).eval()


def branch(x: Tensor) -> Tensor:
    """What is branched off: a fixed map."""
    return (x @ WEIGHT.to(x.dtype)).tanh()


def through(residual: Any, x: Tensor, part: Any = branch) -> Tensor:
    """In at one end of a trunk, around one branch, and out at the other."""
    return residual.leave(residual(residual.enter(x), part))


def check_shape(config: Any) -> None:
    """The branch sees [b n d], and [b n d] comes out, finite."""
    residual, x = made(config), torch.randn(ROWS, TOKENS, WIDTH)
    seen: list[Any] = []

    def watched(inner: Tensor) -> Tensor:
        seen.append(inner.shape)
        return branch(inner)

    y = through(residual, x, watched)
    expect(seen == [x.shape], f"the branch is called with {[list(shape) for shape in seen]} instead of once")
    expect(y.shape == x.shape, f"gives {list(y.shape)} for {list(x.shape)}")
    finite(y, "the output")


def check_goes_past(config: Any) -> None:
    """A branch of 0 lets the stream through (up to one factor), and gradients with it; another branch changes it."""
    residual = made(config)
    x = torch.randn(ROWS, TOKENS, WIDTH, requires_grad=True)
    y = through(residual, x, torch.zeros_like)
    factor = (y * x).sum() / x.square().sum()
    near(y, factor * x, "the stream around a branch of 0")
    expect(factor > 0.1, f"lets only {float(factor.detach()):.3f} of the stream through")
    expect(torch.autograd.grad(y.sum(), x)[0].any(), "no gradient goes past the branch")
    expect(not torch.equal(through(residual, x), y), "the branch changes nothing")


def check_expectation(config: Any) -> None:
    """What is random in training has the mean that evaluation gives, in every block."""
    for index in (0, DEPTH - 1):
        residual, row = made(config, index), torch.randn(1, 1, WIDTH)
        with torch.no_grad():
            wanted, found = through(residual, row), through(residual.train(), row.expand(20_000, 1, WIDTH))
        error = (found.mean(0, keepdim=True) - wanted).abs()
        allowed = 5 * found.std(0, keepdim=True) / 20_000**0.5 + 1e-5
        expect((error <= allowed).all(), "the mean in training is not what evaluation gives")


def check_repeatable(config: Any) -> None:
    """Evaluation is not random, and training is decided by the seed."""
    residual, x = made(config), torch.randn(ROWS, TOKENS, WIDTH)
    expect(torch.equal(through(residual, x), through(residual, x)), "evaluation is random")
    residual.train()
    torch.manual_seed(5)
    first = through(residual, x)
    torch.manual_seed(5)
    expect(torch.equal(first, through(residual, x)), "the same seed gives something else")


def check_gradients(config: Any) -> None:
    """Every trainable parameter gets a gradient."""
    residual = made(config)
    if list(residual.parameters()):
        gradients(residual, through(residual, torch.randn(ROWS, TOKENS, WIDTH)))


def check_bf16(config: Any) -> None:
    """A branch in bf16 stays near float32, and leaves the stream's type as it is."""
    residual, x = made(config), torch.randn(ROWS, TOKENS, WIDTH)
    in_bf16(lambda: through(residual, x))
    y = through(residual, x, lambda inner: branch(inner).bfloat16())
    expect(y.dtype == torch.float32, f"the stream becomes {y.dtype}")


def check_compiles(config: Any) -> None:
    """It compiles whole, in training too, and gives the same."""
    residual, x = made(config), torch.randn(ROWS, TOKENS, WIDTH)
    near(compiled(lambda x: through(residual, x))(x), through(residual, x), "compiled")
    residual.train()
    finite(compiled(lambda x: through(residual, x))(x), "compiled, in training")
