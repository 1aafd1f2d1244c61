"""Quantizers against loops, closed forms and what must not happen: the moving codebook, revival, levels, the rotation."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, find
from sevenfold.objective.quantizer import Quantizer


def made(kind, **settings):
    torch.manual_seed(0)
    return decode(Quantizer.Config, {"kind": kind, **settings}).build().double()


def step(quantizer, *pieces):
    quantizer.forget()
    for z in pieces:
        quantizer(z)
    quantizer.after_step()


# Vector quantization


@pytest.mark.parametrize("pieces", [1, 3])
def test_the_codebook_follows_the_equations_one_code_and_vector_at_a_time(pieces):
    size, width, g, eps = 5, 3, 0.9, 1e-5
    vq = made("vq", size=size, width=width, decay=g, revive=0.0)
    step(vq, torch.randn(40, width).double())
    codes, n, m = vq.codes.tolist(), vq.weights.tolist(), vq.means.tolist()
    for _ in range(6):
        batch = torch.randn(30, width).double()
        counts, sums = [0] * size, [[0.0] * width for _ in range(size)]
        for z in batch.tolist():
            away = [sum((a - b) ** 2 for a, b in zip(z, e)) for e in codes]
            k = away.index(min(away))
            counts[k] += 1
            sums[k] = [a + b for a, b in zip(sums[k], z)]
        n = [g * a + (1 - g) * b for a, b in zip(n, counts)]
        m = [[g * a + (1 - g) * b for a, b in zip(x, y)] for x, y in zip(m, sums)]
        smooth = [(a + eps) / (sum(n) + size * eps) * sum(n) for a in n]
        codes = [[a / b for a in x] for x, b in zip(m, smooth)]
        step(vq, *batch.chunk(pieces))
        torch.testing.assert_close(vq.codes, torch.tensor(codes).double(), atol=1e-6, rtol=0)
    exact = torch.tensor(codes, dtype=torch.float64)
    torch.testing.assert_close(vq.codes, exact, atol=1e-10, rtol=0)


def test_with_a_frozen_encoder_it_is_k_means():
    """Within 5 % of the inertia of scikit-learn's, begun with the same codes."""
    from sklearn.cluster import KMeans

    draw = torch.Generator().manual_seed(1)
    centers = torch.randn(12, 4, generator=draw).double() * 4
    z = centers[torch.randint(12, (600,), generator=draw)] + torch.randn(600, 4, generator=draw).double()
    vq = made("vq", size=12, width=4, decay=0.8, revive=0.0)
    step(vq, z)
    first = vq.codes.numpy().copy()
    for _ in range(200):
        step(vq, z)
    found = (z - vq.eval()(z).x).square().sum()
    wanted = KMeans(12, init=first, n_init=1).fit(z.numpy())
    assert float(found) < 1.05 * wanted.inertia_
    assert float(found) < 0.8 * float((z[:, None] - torch.from_numpy(first)).square().sum(-1).min(1).values.sum())


def test_the_first_codes_are_vectors_of_the_first_batch():
    vq, z = made("vq", size=8, width=3), torch.randn(50, 3).double()
    assert not vq.begun
    step(vq, z)
    assert vq.begun
    away = torch.cdist(vq.codes, z).min(1).values
    assert float(away.max()) < 1e-7
    assert len(vq.codes.unique(dim=0)) == 8


def test_of_fewer_vectors_than_codes_the_rest_waits():
    vq = made("vq", size=8, width=3)
    before = vq.codes.clone()
    step(vq, torch.randn(3, 3).double())
    assert torch.equal(vq.codes[3:], before[3:])
    for _ in range(4):
        step(vq, torch.randn(3, 3).double())
    assert torch.isfinite(vq.codes).all()


@pytest.mark.parametrize(("revive", "used"), [(0.1, 8), (0.0, 1)])
def test_dead_codes_come_back_only_with_revival(revive, used):
    """All codes but one lie far away from all vectors; revived, they are among them within a few steps."""
    vq = made("vq", size=8, width=2, revive=revive)
    step(vq, torch.randn(64, 2).double())
    far = torch.full((7, 2), 100.0).double()
    vq.codes[1:], vq.means[1:], vq.weights[1:] = far, far * 0.01, 0.01
    for _ in range(30):
        step(vq, torch.randn(64, 2).double())
    assert len(vq.eval()(torch.randn(500, 2).double()).ids.unique()) == used


def test_a_revived_code_has_the_weight_of_the_threshold():
    vq = made("vq", size=4, width=2, revive=0.2)
    step(vq, torch.randn(40, 2).double())
    vq.weights[2], vq.codes[2], vq.means[2] = 0.0, 50.0, 0.0
    z = torch.randn(40, 2).double()
    step(vq, z)
    assert float(vq.weights[2]) == pytest.approx(0.2 * 40 / 4)
    assert float(torch.cdist(vq.codes[2:3], z).min()) < 1e-7
    torch.testing.assert_close(vq.means[2], vq.codes[2] * vq.weights[2])


def test_one_code_is_the_mean_of_everything():
    vq, z = made("vq", size=1, width=3, decay=0.0), torch.randn(50, 3).double()
    step(vq, z)
    step(vq, z)
    torch.testing.assert_close(vq.codes[0], z.mean(0), atol=1e-10, rtol=0)
    assert vq.perplexity() == pytest.approx(1.0)
    assert vq.dead() == 0
    assert not vq(z).ids.any()


def test_gradient_goes_straight_through_and_the_penalty_pulls_to_the_code():
    vq = made("vq", size=6, width=3, commitment=0.25)
    step(vq, torch.randn(60, 3).double())
    z = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    to = torch.randn(10, 3).double()
    found = vq(z)
    (found.x * to).sum().backward()
    torch.testing.assert_close(z.grad, to)
    z.grad = None
    vq(z).penalty.sum().backward()
    torch.testing.assert_close(z.grad, 0.25 * 2 / 3 * (z - vq.codes[found.ids]).detach())


def test_perplexity_is_exp_of_the_entropy():
    vq = made("vq", size=4, width=2)
    vq.uses.copy_(torch.tensor([4.0, 2.0, 1.0, 1.0]))
    entropy = -sum(p * math.log(p) for p in (0.5, 0.25, 0.125, 0.125))
    assert vq.perplexity() == pytest.approx(math.exp(entropy))
    vq.uses.copy_(torch.tensor([1.0, 1e-3, 1.0, 0.0]))
    assert vq.dead() == 2


def test_a_step_that_was_not_taken_leaves_no_trace():
    one, other = made("vq", size=6, width=3), made("vq", size=6, width=3)
    z = torch.randn(3, 50, 3).double()
    for quantizer in (one, other):
        torch.manual_seed(5)
        step(quantizer, z[0])
    other.forget()
    other(torch.full((50, 3), math.nan).double())
    for quantizer in (one, other):
        torch.manual_seed(6)
        step(quantizer, z[1])
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


# The rotation


def test_rotation_is_the_code_forward_and_keeps_the_angle_backward():
    """The gradient's angle to z is that of the incoming one to the code; its length is scaled by |e| / |z|."""
    vq = made("rotation_vq", size=16, width=4)
    step(vq, torch.randn(200, 4).double())
    z = torch.randn(30, 4, dtype=torch.float64, requires_grad=True)
    to = torch.randn(30, 4).double()
    found = vq(z)
    e = vq.codes[found.ids]
    torch.testing.assert_close(found.x, e, atol=1e-10, rtol=0)
    (found.x * to).sum().backward()
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(z.grad, z.detach(), -1), cosine(to, e, -1), atol=1e-10, rtol=0)
    ratio = e.norm(dim=-1) / z.detach().norm(dim=-1)
    torch.testing.assert_close(z.grad.norm(dim=-1), to.norm(dim=-1) * ratio, atol=1e-10, rtol=0)


@pytest.mark.parametrize("z", [[0.0, 0.0], [-1.0, 0.0]])
def test_rotation_where_there_is_none_copies_the_gradient(z):
    """A vector without direction, and one opposite to its code."""
    vq = made("rotation_vq", size=1, width=2)
    vq.codes.copy_(torch.tensor([[2.0, 0.0]]))
    given = torch.tensor([z], dtype=torch.float64, requires_grad=True)
    out = vq.eval()(given).x
    out.sum().backward()
    torch.testing.assert_close(out, vq.codes)
    torch.testing.assert_close(given.grad, torch.ones(1, 2, dtype=torch.float64))


# Finite scalar quantization


def test_every_code_of_the_grid_is_its_own_and_can_be_reached():
    fsq = made("fsq", levels=[8, 5, 3])
    grid = fsq.vectors()
    assert len(grid.unique(dim=0)) == fsq.size == 120
    steps = [[(k - size // 2) / (size // 2) for k in range(size)] for size in (8, 5, 3)]
    wanted = {tuple(reversed(code)) for code in product(*reversed(steps))}
    assert {tuple(code) for code in grid.tolist()} == wanted
    found = fsq(torch.randn(40000, 3).double() * 3)
    assert len(found.ids.unique()) == 120
    torch.testing.assert_close(found.x, grid[found.ids])


def test_zero_is_the_middle_and_the_ends_are_the_outer_levels():
    fsq = made("fsq", levels=[8, 5])
    assert fsq(torch.zeros(1, 2).double()).x.tolist() == [[0.0, 0.0]]
    high, low = (fsq(torch.full((1, 2), sign * 50.0).double()).x[0] for sign in (1, -1))
    assert high.tolist() == [0.75, 1.0]
    assert low.tolist() == [-1.0, -1.0]


def test_gradient_of_levels_is_that_of_the_bound():
    fsq = made("fsq", levels=[8, 5])
    z = torch.randn(20, 2, dtype=torch.float64, requires_grad=True)
    fsq(z).x.sum().backward()
    wanted = torch.autograd.grad((fsq.bounded(z) / torch.tensor([4, 2])).sum(), z)[0]
    torch.testing.assert_close(z.grad, wanted)


@pytest.mark.parametrize("levels", [[2, 5], [1], [], [64, 64, 64, 64]])
def test_levels_that_cannot_be(levels):
    with pytest.raises(ConfigError, match="levels"):
        decode(find("quantizer", "fsq").Config, {"levels": levels})
