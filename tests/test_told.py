"""The loss of a head over ids: without holding all logits it is what it is with them, and so are the gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sevenfold.objective import _told
from sevenfold.objective._told import told
from tiny import made

IDS = {"kind": "text", "field": "caption", "tokenizer": {"kind": "bpe", "size": 300}, "length": 24, "ends": True}


def model(projection="tied", adapter=None, transform=False):
    recipe = {
        "data": {"kind": "digits", "limit": 60},
        "streams": {"text": IDS},
        "trunks": {"lm": {"inputs": ["text"], "width": 16, "depth": 1, "mask": {"causal": True}}},
        "heads": {"text": {"trunk": "lm", "stream": "text", "projection": projection, "transform": transform}},
        "objective": {"kind": "next_token"},
        "train": {"precision": "fp32"},
    }
    if adapter:
        recipe["adapter"] = adapter
    found = made(recipe).model
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return found


def asked(seed=0):
    torch.manual_seed(seed)
    x, targets = torch.randn(3, 11, 16), torch.randint(0, 290, (3, 11))
    targets[0, 3:7] = -100
    return x.requires_grad_(), targets


def gradients(model, x, targets, smoothing):
    found = told(model, "text", x, targets, smoothing, most=True)
    leaves = [x, *(p for p in model.parameters() if p.requires_grad)]
    return found, torch.autograd.grad(1.7 * found.loss, leaves, allow_unused=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("projection", "transform"),
    [("tied", False), ({"kind": "tied", "bias": True}, True), ({"kind": "linear", "bias": True}, False)],
)
def test_in_pieces_it_is_the_same(monkeypatch, projection, transform, smoothing):
    """Against torch's own cross-entropy over all logits in float64, loss and every gradient; pieces of 4 places, the last one short."""
    net = model(projection, transform=transform).double()
    x, targets = asked()
    x = x.detach().double().requires_grad_()
    whole = F.cross_entropy(
        net.head("text", x).flatten(0, 1),
        targets.flatten(),
        reduction="sum",
        ignore_index=-100,
        label_smoothing=smoothing,
    )
    leaves = [x, *net.parameters()]
    wanted = torch.autograd.grad(1.7 * whole, leaves, allow_unused=True)
    for large, waits in ((1 << 30, False), (1, False), (1, True)):
        monkeypatch.setattr(_told, "LARGE", large)
        monkeypatch.setattr(_told, "ROWS", 4)
        monkeypatch.setattr(_told, "waits", lambda x, waits=waits: waits)
        found, grads = gradients(net, x, targets, smoothing)
        torch.testing.assert_close(found.loss, whole, rtol=1e-12, atol=1e-12)
        for mine, theirs in zip(grads, wanted):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)
        logits = net.head("text", x).flatten(0, 1)
        each = F.cross_entropy(logits, targets.flatten(), reduction="none", ignore_index=-100)
        torch.testing.assert_close(found.each, each.detach(), rtol=1e-12, atol=1e-12)
        assert int(found.count) == 29 and float(found.nats) == pytest.approx(float(each.sum()))
        assert int(found.right) == int(((logits.argmax(-1) == targets.flatten()) & (targets.flatten() != -100)).sum())


def test_it_is_made_in_pieces_where_it_is_large(monkeypatch):
    """Memory: no tensor as large as all logits; and the head of an adapted projection, which is no plain product, is asked as a whole."""
    net = model()
    x, targets = asked()
    monkeypatch.setattr(_told, "ROWS", 4)
    monkeypatch.setattr(_told, "LARGE", 1)
    largest = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.dim() == 2 and out.shape[1] == net.heads["text"].outputs:
                largest.append(out.shape[0] if out.shape[0] != 16 else 0)  # 16: the weights
            return out

    with Watch():
        gradients(net, x, targets, 0.0)
    assert max(largest) == 4
    largest.clear()
    adapted = model({"kind": "linear"}, {"kind": "lora", "rank": 2, "targets": ["heads.text.projection"]})
    with Watch():
        found, grads = gradients(adapted, x, targets, 0.0)
    assert max(largest) == 33 and any(g is not None and g.abs().max() > 0 for g in grads[1:])
    with torch.no_grad():
        assert not told(net, "text", x, targets).loss.requires_grad


def test_its_gradients_are_handed_on_once(monkeypatch):
    """Nothing as large as the table is kept or copied for a second time backward, and that is said."""
    monkeypatch.setattr(_told, "LARGE", 1)
    net = model()
    x, targets = asked()
    found = told(net, "text", x, targets)
    torch.autograd.grad(found.loss, [x], retain_graph=True)
    with pytest.raises(RuntimeError, match="goes backward once"):
        torch.autograd.grad(found.loss, [x])


def test_a_gradient_of_another_type_is_added_in_pieces(monkeypatch):
    monkeypatch.setattr(_told, "NEAR", 40)
    total, more = torch.randn(7, 3), torch.randn(7, 3).bfloat16()
    wanted = total + more.float()
    _told._add(total, more, first=False)
    assert torch.equal(total, wanted)
    _told._add(total, more, first=True)
    assert torch.equal(total, more.float())


def test_bf16_is_as_near_as_whole_logits_are(monkeypatch):
    """Products in bf16, sums in float32: the error against float64 is that of the plain way."""
    net = model()
    x, targets = asked()
    exact, wanted = gradients(net.double(), x.detach().double().requires_grad_(), targets, 0.0)
    net.float()
    errors = {}
    for large in (1 << 30, 1):
        monkeypatch.setattr(_told, "LARGE", large)
        monkeypatch.setattr(_told, "ROWS", 4)
        with torch.autocast("cpu", torch.bfloat16):
            found, grads = gradients(net, x, targets, 0.0)
        away = [float((a.double() - b).norm() / b.norm()) for a, b in zip(grads, wanted) if b is not None]
        errors[large] = max(away)
        assert float(found.loss) == pytest.approx(float(exact.loss), rel=0.01)
    assert errors[1] < 1.5 * errors[1 << 30] + 1e-3 < 0.03, errors


def test_no_target_no_loss(monkeypatch):
    net = model()
    x, targets = asked()
    for large in (1 << 30, -1):
        monkeypatch.setattr(_told, "LARGE", large)
        found, grads = gradients(net, x, torch.full_like(targets, -100), 0.0)
        assert float(found.loss) == 0 and int(found.count) == 0 and float(found.each.abs().sum()) == 0
        assert all(g is None or not g.any() for g in grads)
