"""What every projection must do: see the contract in sevenfold.blocks.projection."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sevenfold.conformance._kit import (
    Skipped,
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

OUTSIDE, ROWS, TOKENS = 40, 2, 6


def made(config: Any) -> Any:
    """A projection with lively weights."""
    torch.manual_seed(1)
    return lively(config.build(config.part.example_width, OUTSIDE))


def given(projection: Any) -> tuple[Tensor, ...]:
    """What it takes: ids or vectors, and a table if it reads one."""
    inside = projection.width_in
    table = (torch.randn(OUTSIDE, inside),) if projection.reads_table else ()
    if projection.reads_ids:
        return (torch.arange(inside).repeat(ROWS, 1), *table)
    return (torch.randn(ROWS, TOKENS, inside), *table)


def check_shape(config: Any) -> None:
    """[b n width_in] (or ids [b n]) → [b n width_out], finite, token by token."""
    projection = made(config)
    x, *table = given(projection)
    y = projection(x, *table)
    expect(y.shape == (*x.shape[:2], OUTSIDE), f"gives {list(y.shape)} for {list(x.shape)}")
    finite(y, "the output")
    if not projection.reads_row:
        near(projection(x[1:, 2:3], *table), y[1:, 2:3], "a token on its own")


def check_row(config: Any) -> None:
    """Of one that reads a row: rows, padding and other documents are nothing to a token."""
    projection = made(config).double()
    if not projection.reads_row:
        raise Skipped("reads no row")
    ids, valid = torch.randint(projection.width_in, (ROWS, 9)), torch.arange(9).repeat(ROWS, 1) < 6
    segments = (torch.arange(9) >= 4).long().repeat(ROWS, 1)
    near(projection(ids[:1, :6]), projection(ids, valid)[:1, :6], "beside padding")
    near(projection(ids[:, :4]), projection(ids, valid, segments)[:, :4], "the first document of a row")
    near(projection(ids[:, 4:6]), projection(ids, valid, segments)[:, 4:6], "the second document of a row")
    other = torch.where(valid, ids, (ids + 1) % projection.width_in)
    near(projection(other, valid)[valid], projection(ids, valid)[valid], "beside other padding")


def check_weight(config: Any) -> None:
    """`weight` is its matrix, of the shape that the contract says."""
    projection = made(config)
    if projection.dense and not projection.reads_table:
        inside = projection.width_in
        shape = (inside, OUTSIDE) if projection.reads_ids else (OUTSIDE, inside)
        expect(projection.weight.shape == shape, f"weight is {list(projection.weight.shape)}, not {list(shape)}")


def check_matrix(config: Any) -> None:
    """`matrix` says the whole map, W x + b, where it says anything."""
    projection = made(config).double()
    x, *table = (part.double() if part.is_floating_point() else part for part in given(projection))
    said = projection.matrix(*table)
    if said is None:
        raise Skipped("is more than one matrix")
    weight, bias = said
    wanted = x @ weight.T if bias is None else x @ weight.T + bias
    near(projection(x, *table), wanted, "W x + b by what matrix says")


def check_std(config: Any) -> None:
    """`std` is the standard deviation of the initial weights, and the seed decides them."""
    first, second = (_initial(config.replace(std=0.125)) for _ in range(2))
    if not list(first.parameters()) and not first.reads_table:
        raise Skipped("nothing in it is trained")
    if not first.dense:
        pairs = list(zip(first.parameters(), second.parameters()))
        expect(all(torch.equal(*pair) for pair in pairs), "the same seed gives other weights")
        drawn = torch.cat([one.detach().flatten() for one, _ in pairs if one.dim() > 1])
        expect(abs(float(drawn.std()) - 0.125) < 0.02, f"std 0.125 gives weights of {float(drawn.std()):.3f}")
    elif not first.reads_table:
        found = float(first.weight.detach().std())
        expect(abs(found - 0.125) < 0.02, f"std 0.125 gives weights of {found:.3f}")
        expect(torch.equal(first.weight, second.weight), "the same seed gives other weights")


def _initial(config: Any) -> Any:
    torch.manual_seed(1)
    return config.build(config.part.example_width, OUTSIDE)


def check_gradients(config: Any) -> None:
    """Every trainable parameter gets a gradient."""
    projection = made(config)
    if not list(projection.parameters()) and not projection.reads_table:
        raise Skipped("nothing in it is trained")
    x, *table = given(projection)
    gradients(projection, projection(x, *(part.requires_grad_() for part in table)))


def check_bf16(config: Any) -> None:
    """Under autocast it stays near float32."""
    projection = made(config)
    args = given(projection)
    in_bf16(lambda: projection(*args))


def check_compiles(config: Any) -> None:
    """It compiles whole, and gives the same."""
    projection = made(config)
    args = given(projection)
    near(compiled(projection)(*args), projection(*args), "compiled")


def check_flops(config: Any) -> None:
    """The formula agrees with PyTorch's counter."""
    projection = made(config)
    args = given(projection)
    found, wanted = projection.flops(args[0].shape[0] * args[0].shape[1]), counted(lambda: projection(*args))
    expect(found == wanted, f"flops says {found:,}, and {wanted:,} were counted")


def check_kept(config: Any) -> None:
    """The formula of kept numbers is within 10 % of what autograd keeps beside the input (or within a twentieth of it)."""
    projection = made(config)
    x, *table = given(projection)
    if x.is_floating_point():
        x = torch.randn(1, 256, projection.width_in).requires_grad_()
    table = [part.requires_grad_() for part in table]
    found = projection.kept(x.shape[0] * x.shape[1])
    wanted = saved_numbers(lambda: projection(x, *table), [x, *table, *projection.parameters()])
    expect(
        abs(found - wanted) <= max(0.1 * wanted, 0.05 * x.numel()), f"kept says {found:,}, and {wanted:,.0f} are kept"
    )
