"""What every packing must do: see the contract in sevenfold.blocks.projection.packing. Against float64."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor

from sevenfold.conformance._kit import expect, finite, refusal
from sevenfold.core.errors import ConfigError

SIZES = ((64, 64), (40, 70), (1, 1), (129, 33), (64, 257), (300, 96))
"""(width_in, width_out), odd ones too."""
COUNTS = (1, 3, 16, 200)


def made(config: Any, inside: int, outside: int, bias: bool = True, scale: float = 0.1) -> tuple[Any, Tensor, Any]:
    """(a packing, W, b)"""
    weight = torch.randn(outside, inside) * scale
    weight[0] *= 7
    given = torch.randn(outside) if bias else None
    return config.build(weight, given), weight, given


def entries(packed: Any) -> Tensor:
    """W', by what it makes of unit vectors."""
    nothing = packed(torch.zeros(1, packed.width_in))
    return (packed(torch.eye(packed.width_in)) - nothing).mT.double()


def check_shape(config: Any) -> None:
    """[… width_in] → [… width_out] in the dtype of x, whatever that is, each vector by itself."""
    for (inside, outside), bias in product(SIZES, (True, False)):
        packed, _, _ = made(config, inside, outside, bias)
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            x = torch.randn(2, 3, inside).to(dtype)
            y = packed(x)
            expect(y.shape == (2, 3, outside) and y.dtype == dtype, f"gives {y.dtype} {list(y.shape)} for {dtype}")
            finite(y, "the output")
            expect(torch.equal(packed(x[1, 2]), packed(x[1:, 2])[0]), "one vector differs from a batch of one")


def check_error(config: Any) -> None:
    """Each entry is within what the packing says, also of a row of 0, of one column, and of any size."""
    for (inside, outside), scale in product(SIZES, (1e-6, 0.1, 1e3)):
        weight = torch.randn(outside, inside) * scale
        weight[-1] = 0
        found = entries(config.build(weight, None))
        most = config.part.error + config.part.rounds
        wrong = (found - weight).abs() / weight.abs().amax(1, keepdim=True).clamp(min=1e-30)
        expect(
            wrong.amax() <= most, f"an entry of {inside} x {outside} is off by {wrong.amax():.1e}, more than {most:.1e}"
        )
        expect(not found[-1].any(), "a row of 0 is not 0 any more")


def check_product(config: Any) -> None:
    """W' x + b, for few vectors and for many: within the rounding of x, W' x and sums that it says."""
    for (inside, outside), count in product(SIZES, COUNTS):
        packed, weight, bias = made(config, inside, outside)
        x = torch.randn(count, inside)
        wanted = x.double() @ weight.double().T + bias.double()
        kept = x.double().abs().sum(1, keepdim=True) * weight.double().abs().amax(1)
        size = x.double().abs().amax(1, keepdim=True) * weight.double().abs().sum(1)
        rounds = config.part.rounds * (1 + 2 * config.part.error) + 1e-6
        most = config.part.error * kept + 3 * rounds * size + rounds * bias.abs() + 1e-6
        wrong = (packed(x).double() - wanted).abs()
        expect(
            (wrong <= most).all(), f"{count} vectors by {inside} x {outside}: off by {(wrong / most).amax():.1f} times"
        )
        told = x.double() @ entries(packed).T + bias.double()
        near = (packed(x).double() - told).abs() <= 4 * rounds * (size + 1)
        expect(near.all(), f"{count} vectors by {inside} x {outside}: not what its entries give")


def check_many(config: Any) -> None:
    """Vectors one at a time, and all at once, give the same within the rounding of products."""
    packed, weight, _ = made(config, 96, 80)
    x = torch.randn(200, 96)
    one = torch.cat([packed(row) for row in x.split(1)])
    most = 2 * config.part.rounds * x.abs().amax(1, keepdim=True) * weight.abs().sum(1) + 1e-5
    expect(((packed(x) - one).abs() <= most).all(), "many vectors at once give something else than one by one")


def check_bytes(config: Any) -> None:
    """It says how many bytes it takes, no more than the matrix took."""
    packed, weight, _ = made(config, 256, 512)
    expect(0 < packed.bytes <= weight.numel() * 4, f"takes {packed.bytes:,} bytes for {weight.numel():,} entries")
    expect(f"{packed.bytes:,} bytes" in repr(packed), "does not say how many bytes it takes")


def check_reading_only(config: Any) -> None:
    """It has nothing to train, and refuses to be trained or saved, with one line that says why."""
    packed, _, _ = made(config, 64, 64)
    expect(not list(packed.parameters()), "has parameters")
    expect(not packed.training and packed.eval() is packed, "is not in evaluation")
    for action in (packed.train, packed.state_dict):
        expect("packed" in refusal(action, ConfigError), "does not say that it is packed")
