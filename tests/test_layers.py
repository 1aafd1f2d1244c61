"""Parts against their closed forms, or against what PyTorch has under the same name, in float64."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sevenfold.blocks.mixing._scan import scan
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.part import find
from sevenfold.core.types import Hidden, Mask

B, N, D = 2, 7, 24


def made(room: str, kind: str, *args, **settings):
    torch.manual_seed(0)
    part = find(room, kind).Config(**settings).build(*args).double()
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return part.eval()


def noise(*shape):
    return torch.randn(*(shape or (B, N, D)), dtype=torch.float64)


# Norms


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm(bias):
    norm, reference = made("normalization", "layer", D, bias=bias), nn.LayerNorm(D, bias=bias).double()
    reference.load_state_dict(norm.state_dict())
    x = noise() * 5 + 3
    torch.testing.assert_close(norm(x), reference(x), atol=1e-12, rtol=0)


def test_rms_norm():
    norm, x = made("normalization", "rms", D), noise() * 5 + 3
    wanted = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), wanted, atol=1e-12, rtol=0)


# Nonlinearities

POINTWISE = {
    "relu": lambda x: x.clamp(min=0),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + (-x).exp()),
}


@pytest.mark.parametrize("kind", POINTWISE)
def test_plain_feed_forward(kind):
    feed, x = made("nonlinearity", kind, D), noise()
    torch.testing.assert_close(feed(x), POINTWISE[kind](x @ feed.up.weight.T) @ feed.out.weight.T, atol=1e-12, rtol=0)
    assert feed.inner == 4 * D


@pytest.mark.parametrize(("kind", "inside"), [("geglu", "gelu"), ("swiglu", "silu")])
def test_gated_feed_forward_has_the_weights_of_a_plain_one(kind, inside):
    feed, x = made("nonlinearity", kind, D), noise()
    gate, value = feed.up.weight.chunk(2)
    wanted = (POINTWISE[inside](x @ gate.T) * (x @ value.T)) @ feed.out.weight.T
    torch.testing.assert_close(feed(x), wanted, atol=1e-12, rtol=0)
    assert 3 * D * feed.inner == 8 * D * D


def test_tanh_gelu():
    feed, x = made("nonlinearity", "gelu", D, tanh=True), noise()
    h = x @ feed.up.weight.T
    inner = 0.5 * h * (1 + (math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)).tanh())
    torch.testing.assert_close(feed(x), inner @ feed.out.weight.T, atol=1e-12, rtol=0)


# Residuals


def test_residuals():
    x, f = noise(), torch.tanh
    torch.testing.assert_close(made("residual", "add", D)(x, f), x + f(x))
    torch.testing.assert_close(made("residual", "scaled", D, 1, 8)(x, f), x + 0.25 * f(x))
    scale = made("residual", "layer_scale", D)
    torch.testing.assert_close(scale(x, f), x + scale.weight * f(x))
    assert find("residual", "layer_scale").Config().build(D).weight.unique().tolist() == pytest.approx([0.01])


def test_drop_path_drops_whole_rows_more_often_with_depth():
    rows = torch.ones(4000, N, D)
    for index, share in ((0, 0.2), (3, 0.8)):
        part = find("residual", "drop_path").Config(drop=0.8).build(D, index, 4).train()
        y = part(rows, torch.ones_like)
        kept = y.mean((1, 2)) > 1
        assert (y == torch.where(kept, 1 + 1 / (1 - share), 1.0)[:, None, None]).all()
        assert abs(1 - kept.float().mean() - share) < 5 * (share * (1 - share) / 4000) ** 0.5
        assert torch.equal(part.eval()(rows, torch.ones_like), rows + 1)


# Mixers


def dense(mixer, x, seen, bias=None):
    """Attention, one query and one head at a time."""
    q, k, v = mixer.qkv(x).split([mixer.heads * mixer.head_width, *[mixer.kv * mixer.head_width] * 2], -1)
    q, k, v = (part.unflatten(-1, (-1, mixer.head_width)) for part in (q, k, v))
    y = torch.zeros(len(x), x.shape[1], mixer.heads, mixer.head_width, dtype=x.dtype)
    for b, i, h in product(range(len(x)), range(x.shape[1]), range(mixer.heads)):
        g = h * mixer.kv // mixer.heads
        score = (k[b, :, g] @ q[b, i, h]) / mixer.head_width**0.5
        score = score + (0 if bias is None else bias[b, h, i])
        y[b, i, h] = score.masked_fill(~seen[b, i], float("-inf")).softmax(0) @ v[b, :, g]
    return mixer.out(y.flatten(2))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("mask", [Mask(), Mask(causal=True), Mask(True, 3), Mask(False, 2), Mask(True, None, "prefix")])
def test_attention(mask, kv_heads):
    mixer, x = made("mixing", "attention", D, heads=4, kv_heads=kv_heads), noise()
    lengths = [3, 5]
    prefix = torch.tensor(lengths) if mask.prefix else None
    seen = torch.zeros(B, N, N, dtype=torch.bool)
    for b, i, j in product(range(B), range(N), range(N)):
        free = (j <= i or not mask.causal) and (mask.window is None or abs(i - j) < mask.window)
        seen[b, i, j] = free or (prefix is not None and max(i, j) < lengths[b])
    found = mixer(Hidden(x), mask._replace(prefix=prefix))
    torch.testing.assert_close(found, dense(mixer, x, seen), atol=1e-12, rtol=0)


def test_attention_with_alibi():
    mixer, x = made("mixing", "attention", D, heads=6), noise()
    alibi = find("position", "alibi").Config().build(D, 1)
    coords = torch.arange(N)[None, :, None].expand(B, -1, -1)
    slopes = [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]
    distance = (torch.arange(N)[:, None] - torch.arange(N)).abs().double()
    bias = -torch.tensor(slopes, dtype=torch.float64)[None, :, None, None] * distance
    seen = torch.ones(B, N, N).tril().bool()
    found = mixer(Hidden(x, coords, bias=alibi.bias), Mask(causal=True))
    torch.testing.assert_close(found, dense(mixer, x, seen, bias.expand(B, -1, -1, -1)), atol=1e-12, rtol=0)


def test_attention_with_query_key_norm():
    mixer, x = made("mixing", "attention", D, heads=2, query_key_norm=True), noise()
    q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in mixer.qkv(x).chunk(3, -1))
    q, k = (
        F.rms_norm(part, (D // 2,), norm.weight, 1e-6) for part, norm in ((q, mixer.query_norm), (k, mixer.key_norm))
    )
    wanted = mixer.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixer(Hidden(x)), wanted, atol=1e-12, rtol=0)


def test_cross_attention():
    mixer, x, memory = made("mixing", "cross", D, heads=3, memory_width=10), noise(), noise(B, 5, 10)
    reference = nn.MultiheadAttention(D, 3, bias=False, kdim=10, vdim=10, batch_first=True).double()
    k, v = mixer.key_value.weight.chunk(2)
    weights = (mixer.query.weight, k, v, mixer.out.weight)
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight")
    reference.load_state_dict(dict(zip(names, weights)))
    valid = torch.tensor([[True] * 5, [True, True, False, False, True]])
    wanted = reference(x, memory, memory, key_padding_mask=~valid, need_weights=False)[0]
    torch.testing.assert_close(mixer(Hidden(x, memory=Hidden(memory, valid=valid))), wanted, atol=1e-12, rtol=0)


def test_cross_attention_adds_nothing_where_there_is_nothing_to_read():
    project = find("projection", "linear").Config(bias=True).build
    torch.manual_seed(0)
    mixer = find("mixing", "cross").Config().build(D, project)
    nn.init.ones_(mixer.out.bias)
    valid = torch.tensor([[True] * 5, [False] * 5])
    hidden = Hidden(torch.randn(B, N, D), memory=Hidden(torch.randn(B, 5, D), valid=valid))
    assert mixer(hidden)[0].all()
    assert not mixer(hidden)[1].any()
    assert not mixer.weights(hidden)[1].any()


@pytest.mark.parametrize(("kernel", "causal"), [(1, True), (4, True), (5, True), (4, False), (5, False)])
def test_conv(kernel, causal):
    mixer, x = made("mixing", "conv", D, kernel=kernel), noise()
    u, gate = mixer.up(x).chunk(2, -1)
    first = kernel - 1 if causal else kernel // 2
    y = torch.zeros_like(u)
    for i, tap in product(range(N), range(kernel)):
        if 0 <= i + tap - first < N:
            y[:, i] += u[:, i + tap - first] * mixer.taps[:, tap]
    torch.testing.assert_close(mixer(Hidden(x), Mask(causal)), mixer.out(y * F.silu(gate)), atol=1e-12, rtol=0)


def test_min_gru_is_its_recurrence():
    mixer, x = made("mixing", "min_gru", D), noise()
    z, candidate, gate = mixer.up(x).chunk(3, -1)
    h, found = torch.zeros(B, D, dtype=torch.float64), []
    for t in range(N):
        keep = torch.sigmoid(z[:, t])
        h = (1 - keep) * h + keep * candidate[:, t]
        found.append(h)
    wanted = mixer.out(torch.stack(found, 1) * F.silu(gate))
    torch.testing.assert_close(mixer(Hidden(x), Mask(causal=True)), wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 33])
def test_scan_with_strong_decay(n):
    torch.manual_seed(0)
    keep, new = torch.rand(2, n, 3) ** 8, torch.randn(2, n, 3)
    h, found = torch.zeros(2, 3), []
    for t in range(n):
        h = keep[:, t] * h + new[:, t]
        found.append(h)
    torch.testing.assert_close(scan(keep, new, torch.zeros(2, 3)), torch.stack(found, 1), atol=1e-5, rtol=0)


# Positions


def test_rotary_turns_by_the_angles_of_the_paper_also_far_out():
    rotary = find("position", "rotary").Config().build(D, 1)
    for place in (3, 1_000_003):
        cos, sin = rotary.angles(torch.full((1, 1, 1), place), 8)
        angles = [place * 10000 ** (-2 * i / 8) for i in range(4)]
        assert cos.flatten().tolist() == pytest.approx([math.cos(a) for a in angles], abs=1e-6)
        assert sin.flatten().tolist() == pytest.approx([math.sin(a) for a in angles], abs=1e-6)


def test_axial_rotary_turns_each_axis_by_its_own_coordinate():
    axial = find("position", "axial_rotary").Config(base=50.0).build(D, 2)
    cos, _ = axial.angles(torch.tensor([[[3, 5]]]), 10)
    steps = [50.0 ** -(i / 2) for i in range(2)]
    wanted = [math.cos(3 * w) for w in steps] + [math.cos(5 * w) for w in steps] + [1.0]
    assert cos.flatten().tolist() == pytest.approx(wanted, abs=1e-6)


def test_sinusoidal_far_out():
    found = find("position", "sinusoidal").Config().build(8, 1).embed(torch.full((1, 1, 1), 1_000_003)).flatten()
    angles = [1_000_003 * 10000 ** (-i / 4) for i in range(4)]
    assert found.tolist() == pytest.approx([*map(math.sin, angles), *map(math.cos, angles)], abs=1e-6)


def test_learned_adds_one_row_per_axis_and_refuses_what_lies_outside():
    learned = find("position", "learned").Config(size=5).build(D, 2)
    coords = torch.tensor([[[0, 4], [3, 1]]])
    torch.testing.assert_close(learned.embed(coords)[0, 1], learned.tables[0, 3] + learned.tables[1, 1])
    for wrong in (coords + 1, coords - 1):
        with pytest.raises(DataError, match=r"outside the learned table of 5 rows: .*position\.size"):
            learned.embed(wrong)


@pytest.mark.parametrize("kind", ["rotary", "axial_rotary", "learned"])
def test_positions_refuse_tokens_without_coordinates(kind):
    with pytest.raises(ConfigError, match="none"):
        find("position", kind).Config().build(D, 0)
