"""What every residual must do: see the contract in sevenfold.blocks.residual."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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
from sevenfold.core.errors import ConfigError

ROWS, TOKENS, DEPTH, CONDITION = 3, 5, 4, 12
WEIGHT = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(3)) * WIDTH**-0.5


def made(config: Any, index: int = DEPTH - 1) -> Any:
    """The residual of the last block of four, in evaluation."""
    return lively(fresh(config, index), 0.01).eval()


def fresh(config: Any, index: int = DEPTH - 1) -> Any:
    """The same as it is at the start, around the second branch of its block, where there is a condition."""
    torch.manual_seed(1)
    return config.build(WIDTH, index, DEPTH, 1, CONDITION).eval()


def condition(rows: int = ROWS) -> Tensor:
    """What adaptive parts are conditioned on, the same for every row."""
    return torch.linspace(-1, 1, CONDITION).expand(rows, -1)


def branch(x: Tensor) -> Tensor:
    """What is branched off: a fixed map."""
    return (x @ WEIGHT.to(x.dtype)).tanh()


def through(residual: Any, x: Tensor, part: Any = branch) -> Tensor:
    """In at one end of a trunk, around one branch, and out at the other."""
    return residual.leave(residual(residual.enter(x), part, condition(len(x)).to(x.dtype)))


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
    residual = fresh(config)
    x = torch.randn(ROWS, TOKENS, WIDTH, requires_grad=True)
    y = through(residual, x, torch.zeros_like)
    factor = (y * x).sum() / x.square().sum()
    near(y, factor * x, "the stream around a branch of 0")
    expect(factor > 0.1, f"lets only {float(factor.detach()):.3f} of the stream through")
    expect(torch.autograd.grad(y.sum(), x)[0].any(), "no gradient goes past the branch")
    residual = made(config)
    apart = through(residual, x) - through(residual, x, torch.zeros_like)
    expect(apart.any(), "the branch changes nothing")


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


def check_streams(config: Any) -> None:
    """Between `enter` and `leave` the stream is [b n d], or [b n s d] with s `streams`; padding and order do not matter."""
    residual, x = made(config).double(), torch.randn(ROWS, TOKENS, WIDTH, dtype=torch.float64)
    inside = residual(residual.enter(x), branch, condition().double())
    wanted = (ROWS, TOKENS, WIDTH) if residual.streams == 1 else (ROWS, TOKENS, residual.streams, WIDTH)
    expect(inside.shape == wanted, f"the stream is {list(inside.shape)} instead of {list(wanted)}")
    near(through(residual, x[:, 1:3]), through(residual, x)[:, 1:3], "two tokens on their own")


def check_kept(config: Any) -> None:
    """The formula of kept numbers is within 10 % of what autograd keeps (or within a twentieth of the stream)."""
    residual = made(config).train()
    stream = residual.enter(torch.randn(1, 256, WIDTH)).requires_grad_()
    told, outside = condition(1).clone().requires_grad_(), torch.randn(1, 256, WIDTH)

    def run() -> Tensor:
        return residual(stream, lambda inner: inner + outside, told)

    found, wanted = residual.kept(256), saved_numbers(run, [stream, told, *residual.parameters()])
    expect(
        abs(found - wanted) <= max(0.1 * wanted, 0.05 * outside.numel()),
        f"kept says {found:,}, and {wanted:,.0f} are kept",
    )


def check_flops(config: Any) -> None:
    """The formula agrees with PyTorch's counter."""
    residual = made(config)
    x = residual.enter(torch.randn(1, TOKENS, WIDTH))
    found, wanted = residual.flops(TOKENS), counted(lambda: residual(x, lambda inner: inner, condition(1)))
    expect(found == wanted, f"flops says {found:,}, and {wanted:,} were counted")


def check_without_condition(config: Any) -> None:
    """Without a condition it is built and works, or is refused in one line."""
    try:
        residual = config.build(WIDTH)
    except ConfigError as error:
        expect("condition" in str(error) and "\n" not in str(error), f"the error does not name the condition: {error}")
        return
    finite(residual.leave(residual(residual.enter(torch.randn(ROWS, TOKENS, WIDTH)), branch)), "without a condition")
