"""What every normalization must do: see the contract in sevenfold.blocks.normalization."""

from __future__ import annotations

from typing import Any

import torch

from sevenfold.conformance._kit import WIDTH, compiled, expect, finite, gradients, in_bf16, lively, near

ROWS, TOKENS = 4, 6


def made(config: Any) -> Any:
    """One as it is at the start."""
    torch.manual_seed(1)
    return config.build(WIDTH)


def check_shape(config: Any) -> None:
    """[b n d] → [b n d], also [b d]; finite with finite gradients where all channels are 0."""
    norm, x = made(config), torch.randn(ROWS, TOKENS, WIDTH)
    expect(norm(x).shape == x.shape, f"gives {list(norm(x).shape)} for {list(x.shape)}")
    expect(norm(x[:, 0]).shape == (ROWS, WIDTH), "does not take [b d]")
    zeros = torch.zeros(ROWS, TOKENS, WIDTH, requires_grad=True)
    y = norm(zeros)
    finite(y, "the output for zeros")
    finite(torch.autograd.grad(y.sum(), zeros)[0], "the gradient for zeros")


def check_keeps_size(config: Any) -> None:
    """Whatever the size of what comes in, about 1 comes out."""
    norm, x = made(config), torch.randn(ROWS, TOKENS, WIDTH)
    for size in (0.1, 1.0, 1000.0):
        found = float(norm(x * size).square().mean().sqrt().detach())
        expect(0.3 < found < 3, f"activations of size {size:g} leave with size {found:.3f}")


def check_repeatable(config: Any) -> None:
    """In evaluation, rows do not depend on each other."""
    norm = made(config).double().eval()
    x = torch.randn(ROWS, TOKENS, WIDTH, dtype=torch.float64)
    near(norm(x[1:2]), norm(x)[1:2], "a row on its own")


def check_gradients(config: Any) -> None:
    """Every trainable parameter gets a gradient, and so does the input."""
    norm = lively(made(config))
    x = torch.randn(ROWS, TOKENS, WIDTH, requires_grad=True)
    gradients(norm, norm(x))
    expect(x.grad is not None and x.grad.any(), "the input gets no gradient")


def check_bf16(config: Any) -> None:
    """On bf16 it stays near float32, also for large activations."""
    norm, x = lively(made(config)), torch.randn(ROWS, TOKENS, WIDTH).bfloat16() * 1000
    in_bf16(lambda: norm(x) if torch.is_autocast_enabled("cpu") else norm(x.float()))


def check_compiles(config: Any) -> None:
    """It compiles whole, and gives the same."""
    norm, x = lively(made(config)), torch.randn(ROWS, TOKENS, WIDTH)
    near(compiled(norm)(x), norm(x), "compiled")
