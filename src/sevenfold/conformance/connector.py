"""What every connector must do: see the contract in sevenfold.assembly.connector."""

from __future__ import annotations

from typing import Any

import torch

from sevenfold.conformance._kit import (
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

INSIDE, OUTSIDE, ROWS, TOKENS = 24, 40, 2, 6


def made(config: Any) -> Any:
    """A connector with lively weights."""
    torch.manual_seed(1)
    return lively(config.build(INSIDE, OUTSIDE))


def check_shape(config: Any) -> None:
    """[b n width_in] → [b n width_out], finite, token by token."""
    connector, x = made(config), torch.randn(ROWS, TOKENS, INSIDE)
    y = connector(x)
    expect(y.shape == (ROWS, TOKENS, OUTSIDE), f"gives {list(y.shape)} for {list(x.shape)}")
    finite(y, "the output")
    near(connector(x[1:, 2:3]), y[1:, 2:3], "a token on its own")


def check_seed(config: Any) -> None:
    """The seed decides the first weights."""
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        found.append(list(config.build(INSIDE, OUTSIDE).parameters()))
    expect(all(torch.equal(*pair) for pair in zip(*found, strict=True)), "the same seed gives other weights")


def check_gradients(config: Any) -> None:
    """Every trainable parameter gets a gradient."""
    connector = made(config)
    gradients(connector, connector(torch.randn(ROWS, TOKENS, INSIDE)))


def check_bf16(config: Any) -> None:
    """Under autocast it stays near float32."""
    connector, x = made(config), torch.randn(ROWS, TOKENS, INSIDE)
    in_bf16(lambda: connector(x))


def check_compiles(config: Any) -> None:
    """It compiles whole, and gives the same."""
    connector, x = made(config), torch.randn(ROWS, TOKENS, INSIDE)
    near(compiled(connector)(x), connector(x), "compiled")


def check_flops(config: Any) -> None:
    """The formula agrees with PyTorch's counter."""
    connector, x = made(config), torch.randn(ROWS, TOKENS, INSIDE)
    found, wanted = connector.flops(ROWS * TOKENS), counted(lambda: connector(x))
    expect(found == wanted, f"flops says {found:,}, and {wanted:,} were counted")


def check_kept(config: Any) -> None:
    """The formula of kept numbers is within 10 % of what autograd keeps beside the input (or within a twentieth of it)."""
    connector, x = made(config), torch.randn(1, 256, INSIDE).requires_grad_()
    found, wanted = connector.kept(256), saved_numbers(lambda: connector(x), [x, *connector.parameters()])
    expect(
        abs(found - wanted) <= max(0.1 * wanted, 0.05 * x.numel()), f"kept says {found:,}, and {wanted:,.0f} are kept"
    )
