"""Linear layers of 8-bit products: held against float64 by the book, and against PyTorch's own scaled product."""

from __future__ import annotations

import pytest
import torch

from sevenfold.blocks.projection import _float8
from sevenfold.blocks.projection._float8 import BACKWARD, FORWARD, linear8, narrowed, product
from sevenfold.blocks.projection.linear import Linear
from sevenfold.core.errors import ConfigError
from sevenfold.training.fit import fit
from sevenfold.training.float8 import float8_blocks
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe
from tiny import recipe


def rounded(x, dtype):
    """The nearest numbers of the type to x under the scale, in float64: mantissa bits are counted by hand."""
    bits, least = (3, -6) if dtype == FORWARD else (2, -14)
    top = _float8.TOP[dtype]
    x = x.double()
    scale = 2.0 ** (top - torch.floor(torch.log2(x.abs().max())))
    power = torch.floor(torch.log2((x * scale).abs().clamp(min=2.0**-60))).clamp(min=least)
    unit = 2.0 ** (power - bits)
    return torch.round(x * scale / unit) * unit / scale  # halves to even, as the types have it


@pytest.mark.parametrize("dtype", [FORWARD, BACKWARD])
@pytest.mark.parametrize("size", [1e-30, 1e-4, 1.0, 300.0, 1e30])
def test_numbers_are_the_nearest(dtype, size):
    torch.manual_seed(0)
    x = torch.randn(40, 48) * size * torch.rand(40, 1) ** 8
    found, scale = narrowed(x, dtype)
    assert torch.equal(found.double() * scale.double(), rounded(x, dtype))


@pytest.mark.parametrize("of", [0.0, float("nan"), float("inf")])
def test_what_has_no_size(of):
    """Nothing stays nothing, and what is not a number stays none: the guard of the trainer sees it."""
    x, weight = torch.full((16, 16), of), torch.eye(16)
    y = linear8(x, weight)
    assert torch.equal(y, torch.zeros_like(y)) if of == 0 else not torch.isfinite(y).any()


def test_a_layer_is_what_the_book_says():
    torch.manual_seed(0)
    x = torch.randn(3, 7, 32).bfloat16().requires_grad_()
    weight, bias = (torch.randn(48, 32) * 0.1).requires_grad_(), torch.randn(48).requires_grad_()
    noise = torch.randn(3, 7, 48).bfloat16() * 1e-3
    y = linear8(x, weight, bias)
    y.backward(noise)
    x8, w8, d8 = (
        rounded(x.detach().flatten(0, 1), FORWARD),
        rounded(weight.detach(), FORWARD),
        rounded(noise.flatten(0, 1), BACKWARD),
    )
    near = {"rtol": 2**-8, "atol": 1e-9}  # one rounding to bf16; sums were float32
    plain = linear8(x.detach(), weight.detach()).double().flatten(0, 1)
    torch.testing.assert_close(plain, x8 @ w8.t(), **near | {"atol": 1e-6})
    torch.testing.assert_close(y.detach(), linear8(x.detach(), weight.detach()) + bias.detach().bfloat16())
    torch.testing.assert_close(x.grad.double().flatten(0, 1), d8 @ w8, **near)
    torch.testing.assert_close(weight.grad.double(), d8.t() @ x8, **near)
    torch.testing.assert_close(bias.grad, noise.flatten(0, 1).sum(0).float(), rtol=2**-7, atol=1e-5)


@pytest.mark.parametrize(("left", "right"), [(FORWARD, FORWARD), (BACKWARD, FORWARD)])
def test_pytorchs_own_product_says_the_same(left, right, monkeypatch):
    """Its kernel for CPUs is the oracle; the way that a GPU takes runs through it, with tokens that are no multiple of 16."""
    torch.manual_seed(0)
    (a, of_a), (b, of_b) = narrowed(torch.randn(32, 21), left), narrowed(torch.randn(21, 48), right)
    here = product(a, b, of_a, of_b)
    monkeypatch.setattr(_float8, "native", lambda device: True)
    there = product(a, b, of_a, of_b)
    assert there.dtype == here.dtype == torch.bfloat16
    torch.testing.assert_close(here, there, rtol=2**-8, atol=1e-6)


def test_only_in_training_and_where_sides_fit():
    layer, odd = Linear.Config(bias=True).build(32, 48), Linear.Config().build(32, 20)
    for parameter in (*layer.parameters(), *odd.parameters()):
        torch.nn.init.normal_(parameter)
    x = torch.randn(4, 32)
    assert layer.to_float8() and not odd.to_float8()
    with torch.autocast("cpu", torch.bfloat16):
        exact = torch.nn.functional.linear(x, layer.weight, layer.bias)
        assert torch.equal(layer.train()(x), linear8(x, layer.weight, layer.bias))
        assert not torch.equal(layer(x), exact) and torch.equal(layer.eval()(x), exact)
        assert torch.equal(odd.train()(x), torch.nn.functional.linear(x, odd.weight))
    assert torch.equal(layer.train()(x), torch.nn.functional.linear(x, layer.weight, layer.bias)), "where it is wide"


def test_it_compiles_whole():
    layer = Linear.Config(bias=True).build(16, 32)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    layer.to_float8()
    x = torch.randn(5, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
        torch.testing.assert_close(y, layer(x))
    y.float().sum().backward()
    assert x.grad is not None


def test_a_recipe_trains_in_it(tmp_path):
    """Blocks only, and what is trained differs from bf16 by a little."""
    losses = {}
    for precision in ("fp8", "bf16"):
        ready = prepare(read_recipe(recipe("next_token", tmp_path, block={}, precision=precision, steps=4)))
        done = fit(ready.objective, ready.train, ready.held_out, ready.recipe.train)
        losses[precision] = [record["loss"] for record in done.log if "loss" in record]
        narrow = {name.split(".")[0] for name, part in ready.model.named_modules() if getattr(part, "float8", False)}
        assert narrow == ({"trunks"} if precision == "fp8" else set())
    assert losses["fp8"] != losses["bf16"] and losses["fp8"] == pytest.approx(losses["bf16"], rel=0.02)


def test_blocks_without_a_fitting_side_are_refused(tmp_path):
    data = recipe("next_token", tmp_path, block={}, precision="fp8")
    data["trunks"]["lm"]["width"] = 24
    model = prepare(read_recipe(data)).model
    with pytest.raises(ConfigError, match="multiples of 16"):
        float8_blocks(model)
