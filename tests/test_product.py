"""Which library multiplies: the same numbers either way, gradients of gradients included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sevenfold.blocks.projection import _product
from sevenfold.blocks.projection.linear import Linear


@pytest.fixture
def onednn(monkeypatch):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(_product, "QUICKER", True)
    monkeypatch.setattr(_product, "SMALL", 1)
    monkeypatch.setattr(_product, "NARROW", 1)


@pytest.mark.parametrize("bias", [True, False])
def test_as_exact_as_float32_is(onednn, bias):
    torch.manual_seed(0)
    x, weight, noise = torch.randn(3, 7, 20), torch.randn(12, 20), torch.randn(3, 7, 12)
    given = [x, weight, *([torch.randn(12)] if bias else [])]

    def run(linear, dtype):
        own = [part.to(dtype).requires_grad_() for part in given]
        y = linear(*own)
        grads = torch.autograd.grad((y * noise.to(dtype)).sum(), own, create_graph=True)
        again = torch.autograd.grad(grads[0].square().sum(), own[1])
        return [y, *grads, *again]

    for found, exact in zip(run(_product.linear, torch.float32), run(F.linear, torch.float64)):
        assert (found.double() - exact).abs().max() <= 2e-6 * exact.abs().max()


def test_only_where_it_can(onednn, monkeypatch):
    taken = []
    kept = _product._product
    monkeypatch.setattr(_product, "_product", lambda *given: taken.append(1) or kept(*given))
    part = Linear.Config().build(16, 8)
    part(torch.randn(4, 16))
    assert taken == [1]
    with torch.autocast("cpu", torch.bfloat16):
        assert part(torch.randn(4, 16)).dtype == torch.bfloat16
    part.double()(torch.randn(4, 16, dtype=torch.float64))
    part.to("meta")(torch.randn(4, 16, device="meta"))
    assert taken == [1]


def test_compiles_whole(onednn):
    part, x = Linear.Config(bias=True).build(16, 8), torch.randn(4, 16)
    torch.nn.init.normal_(part.weight)
    torch.nn.init.normal_(part.bias)
    assert torch.allclose(torch.compile(part, fullgraph=True, backend="aot_eager")(x), part(x))
