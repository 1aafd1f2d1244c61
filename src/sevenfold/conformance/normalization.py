"""What every normalization must do: see the contract in sevenfold.blocks.normalization."""

from __future__ import annotations

from typing import Any

import torch

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

ROWS, TOKENS, CONDITION = 4, 6, 12


def made(config: Any) -> Any:
    """One as it is at the start, where there is a condition."""
    torch.manual_seed(1)
    return config.build(WIDTH, CONDITION)


def condition(rows: int = ROWS, dtype: Any = None) -> Any:
    """What adaptive norms are conditioned on, another for every row."""
    return torch.linspace(-1, 1, rows * CONDITION, dtype=dtype).view(rows, CONDITION)


def check_shape(config: Any) -> None:
    """[b n d] → [b n d], also [b d]; finite with finite gradients where all channels are 0."""
    norm, x = made(config), torch.randn(ROWS, TOKENS, WIDTH)
    expect(norm(x, condition()).shape == x.shape, f"gives {list(norm(x, condition()).shape)} for {list(x.shape)}")
    expect(norm(x[:, 0], condition()).shape == (ROWS, WIDTH), "does not take [b d]")
    zeros = torch.zeros(ROWS, TOKENS, WIDTH, requires_grad=True)
    y = norm(zeros, condition())
    finite(y, "the output for zeros")
    finite(torch.autograd.grad(y.sum(), zeros)[0], "the gradient for zeros")


def check_keeps_size(config: Any) -> None:
    """Whatever the size of what comes in, about 1 comes out; of one that does nothing, what comes in."""
    norm, x = made(config), torch.randn(ROWS, TOKENS, WIDTH)
    if not norm.acts:
        expect(torch.equal(norm(x, condition()), x), "says that it does nothing, and gives something else")
        return
    for size in (0.1, 1.0, 1000.0):
        found = float(norm(x * size, condition()).square().mean().sqrt().detach())
        expect(0.3 < found < 3, f"activations of size {size:g} leave with size {found:.3f}")


def check_repeatable(config: Any) -> None:
    """In evaluation, rows do not depend on each other."""
    norm = made(config).double().eval()
    x = torch.randn(ROWS, TOKENS, WIDTH, dtype=torch.float64)
    told = condition(dtype=x.dtype)
    near(norm(x[1:2], told[1:2]), norm(x, told)[1:2], "a row on its own")


def check_across(config: Any) -> None:
    """In training too, unless it says that a row sees the statistics of others."""
    norm = made(config).double().train()
    x = torch.randn(ROWS, TOKENS, WIDTH, dtype=torch.float64)
    told = condition(dtype=x.dtype)
    expect(torch.equal(norm(x[1:2], told[1:2]), norm(x, told)[1:2]) != norm.across, "says `across` wrongly")


def check_gradients(config: Any) -> None:
    """Every trainable parameter gets a gradient, and so does the input."""
    norm = lively(made(config))
    x = torch.randn(ROWS, TOKENS, WIDTH, requires_grad=True)
    gradients(norm, norm(x, condition()))
    expect(x.grad is not None and x.grad.any(), "the input gets no gradient")


def check_bf16(config: Any) -> None:
    """On bf16 it stays near float32, also for large activations."""
    norm, x = lively(made(config)), torch.randn(ROWS, TOKENS, WIDTH).bfloat16() * 1000
    in_bf16(lambda: norm(x if torch.is_autocast_enabled("cpu") else x.float(), condition()))


def check_compiles(config: Any) -> None:
    """It compiles whole, and gives the same."""
    norm, x = lively(made(config)), torch.randn(ROWS, TOKENS, WIDTH)
    near(compiled(norm)(x, condition()), norm(x, condition()), "compiled")


def check_padding(config: Any) -> None:
    """What stands in padding changes no valid token, in training and in evaluation, and is nothing to the buffers."""
    x, valid = torch.randn(ROWS, TOKENS, WIDTH, dtype=torch.float64), torch.ones(ROWS, TOKENS, dtype=torch.bool)
    valid[1, 3:] = False
    other = torch.where(valid[..., None], x, 1e3)
    told = condition(dtype=x.dtype)
    first, second = made(config).double(), made(config).double()
    for _ in range(2):
        near(second(other, told, valid)[valid], first(x, told, valid)[valid], "valid tokens beside other padding")
        first, second = first.eval(), second.eval()


def check_kept(config: Any) -> None:
    """The formula of kept numbers is within 10 % of what autograd keeps (or within a twentieth of the input)."""
    norm, x, told = lively(made(config)), torch.randn(1, 256, WIDTH).requires_grad_(), condition(1).requires_grad_()
    found, wanted = norm.kept(256), saved_numbers(lambda: norm(x, told), [x, told, *norm.parameters()])
    expect(
        abs(found - wanted) <= max(0.1 * wanted, 0.05 * x.numel()), f"kept says {found:,}, and {wanted:,.0f} are kept"
    )


def check_flops(config: Any) -> None:
    """The formula agrees with PyTorch's counter."""
    norm, x = made(config), torch.randn(1, TOKENS, WIDTH)
    found, wanted = norm.flops(TOKENS), counted(lambda: norm(x, condition(1)))
    expect(found == wanted, f"flops says {found:,}, and {wanted:,} were counted")


def check_without_condition(config: Any) -> None:
    """Without a condition it is built and works, or is refused in one line."""
    try:
        norm = config.build(WIDTH)
    except ConfigError as error:
        expect("condition" in str(error) and "\n" not in str(error), f"the error does not name the condition: {error}")
        return
    finite(norm(torch.randn(ROWS, TOKENS, WIDTH)), "without a condition")
