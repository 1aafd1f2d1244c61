"""Attention over short rows in bf16 on a CPU: held against float64 by the book, and against PyTorch's own kernel."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from sevenfold.blocks.mixing import _rows
from sevenfold.blocks.mixing.attention import Attention
from sevenfold.core.types import Hidden, Mask

torch.manual_seed(0)


def run(attend, given, noise):
    given = [part.detach().clone().requires_grad_() for part in given]
    y = attend(*given)
    y.backward(noise.to(y.dtype))
    return [y.detach(), *(part.grad for part in given)]


def far(found, exact):
    """The largest distance to the exact numbers, each over the largest of these."""
    return max(((a.double() - b).abs().max() / b.abs().max()).item() for a, b in zip(found, exact))


@pytest.mark.parametrize(
    ("n", "m", "causal", "masked"),
    [(200, 200, True, False), (300, 300, True, False), (70, 130, False, False), (33, 33, False, True)],
)
def test_nearly_as_exact_as_pytorch(n, m, causal, masked, monkeypatch):
    """Pieces of rows and of queries included: three rows are taken in two pieces. The largest distances, the mean of
    four draws: scores are rounded to bf16 (2^-8) here and not there."""
    b, h, d, scale = 3, 2, 16, 0.3
    monkeypatch.setattr(_rows, "SCORES", 2 * h * n * m)
    ours = theirs = 0.0
    for _ in range(4):
        given = [torch.randn(b, length, h, d).bfloat16().transpose(1, 2) for length in (n, m, m)]
        noise = torch.randn(b, h, n, d).bfloat16()
        seen = (torch.rand(b, 1, 1, m) < 0.7) | (torch.arange(m) == 0) if masked else None
        book = partial(F.scaled_dot_product_attention, attn_mask=seen, is_causal=causal, scale=scale)
        exact = run(book, [x.double() for x in given], noise.double())
        theirs += far(run(book, given, noise), exact) / 4
        ours += far(run(lambda q, k, v: _rows.attend(q, k, v, scale, causal, seen), given, noise), exact) / 4  # noqa: B023
    assert ours <= theirs + 1.5 * 2**-8 < 0.02


def test_the_mixer_takes_it_where_it_pays(monkeypatch):
    taken = []
    kept = _rows.attend
    monkeypatch.setattr(_rows, "attend", lambda *given: taken.append(given[4]) or kept(*given))
    mixer = Attention.Config(heads=2).build(32)
    hidden = Hidden(torch.randn(2, 9, 32), torch.arange(9).expand(2, 9)[..., None])
    plain = mixer(hidden, Mask(causal=True))
    assert not taken
    with torch.autocast("cpu", torch.bfloat16):
        half = mixer(hidden, Mask(causal=True))
        mixer(hidden._replace(x=torch.randn(1, _rows.MOST + 1, 32)))
    assert taken == [True]
    assert torch.allclose(half.float(), plain, atol=0.02 * plain.abs().max().item())


def test_it_compiles_whole():
    mixer = Attention.Config(heads=2).build(32)
    hidden = Hidden(torch.randn(2, 9, 32, requires_grad=True))
    with torch.autocast("cpu", torch.bfloat16):
        y = torch.compile(mixer, fullgraph=True, backend="aot_eager")(hidden, Mask(causal=True))
        assert torch.allclose(y, mixer(hidden, Mask(causal=True)), atol=1e-2)
    y.float().sum().backward()
    assert hidden.x.grad is not None
