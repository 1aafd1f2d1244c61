"""Positions against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sevenfold.assembly.trunk import Trunk
from sevenfold.blocks.mixing.attention import turn
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.part import decode, find
from sevenfold.core.types import Stream

D = 24


def made(kind: str, *args, **settings):
    return decode(find("position", kind).Config, settings).build(*args)


def grid(*sides: int) -> torch.Tensor:
    """Every place of a grid, [1 n c]."""
    return torch.cartesian_prod(*[torch.arange(side) for side in sides]).reshape(1, -1, len(sides))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("step", [1, 5])
def test_sinusoidal_of_a_later_place_is_a_linear_map_of_the_earlier_one(axes, step):
    """PE(p + k) = M_k PE(p) with one matrix for every p: it is solved from some places, and holds at others."""
    part = made("sinusoidal", D, axes, base=20.0)
    coords = torch.randint(0, 300, (1, 200, axes))
    here, there = part.embed(coords)[0].double(), part.embed(coords + step)[0].double()
    matrix = torch.linalg.lstsq(here[:100], there[:100]).solution
    assert torch.allclose(here[100:] @ matrix, there[100:], atol=1e-5)
    assert torch.allclose(matrix.T @ matrix, torch.eye(D, dtype=torch.float64), atol=1e-5)  # and it is a rotation


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kind", ["rotary", "axial_rotary", "multimodal_rotary"])
def test_rotary_scores_see_differences_only_and_norms_are_kept(kind, axes):
    if axes != 1 and kind == "rotary" or axes == 2 and kind == "multimodal_rotary":
        with pytest.raises(ConfigError, match="axes|axis"):
            made(kind, D, axes)
        return
    part = made(kind, D, axes)
    q, k = torch.randn(2, 1, 1, 1, D, dtype=torch.float64)
    for shift in (0, 1, 17, 4000):
        here, there = torch.randint(0, 50, (2, 1, 1, axes))
        if shift == 0:
            first = turn(q, *part.angles(here, D)) @ turn(k, *part.angles(there, D)).mT
        moved = turn(q, *part.angles(here + shift, D)) @ turn(k, *part.angles(there + shift, D)).mT
        same = turn(q, *part.angles(here, D)) @ turn(k, *part.angles(there, D)).mT
        assert torch.allclose(moved, same, atol=1e-5)
        assert torch.allclose(turn(q, *part.angles(here + shift, D)).norm(), q.norm(), rtol=1e-6)
    assert first.isfinite().all()


def test_rotary_is_multiplication_of_complex_numbers():
    part = made("rotary", D, 1, base=300.0)
    x, coords = torch.randn(1, 1, 7, D, dtype=torch.float64), torch.randint(0, 1000, (1, 7, 1))
    pairs = torch.complex(x[..., : D // 2], x[..., D // 2 :])
    rates = 300.0 ** (-2 * torch.arange(D // 2, dtype=torch.float64) / D)
    wanted = pairs * torch.polar(torch.ones(7, D // 2, dtype=torch.float64), coords[0] * rates)
    found = turn(x, *part.angles(coords, D))
    assert torch.allclose(found, torch.cat([wanted.real, wanted.imag], -1), atol=1e-6)


@pytest.mark.parametrize("axes", [1, 2])
def test_relative_bias_is_a_sum_over_axes_of_what_the_tables_say(axes):
    part = made("relative_bias", D, axes, 3, buckets=8, most=20)
    coords = grid(*([5] * axes))
    found = part.bias(coords, coords, 3)[0]
    for i in range(0, coords.shape[1], 3):
        for j in range(0, coords.shape[1], 4):
            wanted = torch.zeros(3)
            for axis in range(axes):
                away = int(coords[0, j, axis] - coords[0, i, axis])
                far = 2 + int(math.log(max(abs(away), 2) / 2) / math.log(20 / 2) * 2)
                bucket = (4 if away > 0 else 0) + (abs(away) if abs(away) < 2 else min(far, 3))
                wanted += part.tables[axis, bucket].detach()
            assert torch.allclose(found[:, i, j], wanted)


def test_relative_bias_is_made_for_the_heads_of_its_trunk():
    with pytest.raises(ConfigError, match="made for 2 heads, and 3 ask"):
        made("relative_bias", D, 1, 2).bias(grid(4), grid(4), 3)
    with pytest.raises(ConfigError, match="even number"):
        made("relative_bias", D, 1, buckets=7)


def test_one_hot():
    found = made("one_hot", 12, 2).embed(grid(3, 4)).reshape(12, 2, 6)
    assert torch.equal(found.sum(-1), torch.ones(12, 2))
    assert torch.equal(found.argmax(-1), grid(3, 4)[0])
    with pytest.raises(DataError, match="'one_hot' has 6 places"):
        made("one_hot", 12, 2).embed(torch.full((1, 1, 2), 6))


def test_index_grows_without_bound():
    found = made("index", 5, 2, unit=10.0).embed(torch.tensor([[[20, 1000]]]))[0, 0]
    assert found.tolist() == [2, 2, 2, 100, 100]


def test_time_is_the_features_of_diffusion_through_two_layers():
    part = made("time", 6, 1, features=8, shortest=2 * math.pi, longest=2 * math.pi * 10000.0)
    t = torch.tensor([[[0.5], [3.0], [700.25]]], dtype=torch.float64)
    rates = [10000.0 ** (-i / 4) for i in range(4)]
    waves = torch.tensor(
        [[math.cos(float(x) * r) for r in rates] + [math.sin(float(x) * r) for r in rates] for x in t[0]]
    )
    up, bias, down = part.up[0], part.up_bias[0], part.down[0]
    wanted = torch.nn.functional.silu(waves @ up.T + bias) @ down.T
    assert torch.allclose(part.embed(t)[0], wanted, atol=1e-6)


def test_coordinate_mlp_takes_real_places():
    part = made("coordinate_mlp", 6, 3, inner=4, unit=2.0)
    places = torch.randn(1, 5, 3)
    inner = torch.nn.functional.gelu(places / 2 @ part.up.T + part.up_bias)
    assert torch.allclose(part.embed(places), inner @ part.down.T + part.down_bias, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "settings", "why"),
    [
        ("rotary", {"scaling": {"kind": "longrope", "factors": [1.0, 2.0]}}, "2 factors for heads of 12 pairs"),
        ("multimodal_rotary", {"sections": [1, 2, 3]}, "sections \\[1, 2, 3\\] for heads of 12 pairs"),
    ],
)
def test_settings_that_do_not_fit_the_heads(kind, settings, why):
    with pytest.raises(ConfigError, match=why):
        made(kind, D, 1, **settings).angles(grid(3), D)


def test_interleaved_sections_are_what_is_asked():
    """Of Qwen3-VL's head of 64 pairs, 24 follow time, 20 rows and 20 columns, in turn from the first (its mrope_section)."""
    part = made("multimodal_rotary", 4 * 128, 3, interleaved=True)
    followed = part._axes(64, "cpu")
    assert torch.bincount(followed).tolist() == [24, 20, 20]
    assert followed[:6].tolist() == [0, 1, 2, 0, 1, 2] and not followed[60:].any()
    for pairs in (4, 8, 12, 16, 32):
        share = 5 * pairs // 16
        assert torch.bincount(part._axes(pairs, "cpu")).tolist() == [pairs - 2 * share, share, share]


def test_time_needs_a_longest_period():
    with pytest.raises(ConfigError, match="longest is longer"):
        made("time", D, 1, shortest=5.0, longest=2.0)


def cubic(t: float, a: float) -> float:
    """The kernel of Keys."""
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def weights_of(place: int, sides: int, rows: int, blur: bool) -> np.ndarray:
    """How much each of `rows` rows counts at one of `sides` places, by the definition: blurred ones are normed and end at the
    edge, the others repeat it."""
    scale = rows / sides
    centre, weights = (place + 0.5) * scale, np.zeros(rows)
    if blur:
        wide = max(scale, 1.0)
        weights = np.array([cubic((row + 0.5 - centre) / wide, -0.5) for row in range(rows)])
        return weights / weights.sum()
    first = int(np.floor(centre - 0.5))
    for row in range(first - 1, first + 3):
        weights[min(max(row, 0), rows - 1)] += cubic(row + 0.5 - centre, -0.75)
    return weights


@pytest.mark.parametrize("blur", [False, True])
@pytest.mark.parametrize("sides", [(4, 9), (11, 3), (5, 7)])
def test_learned_grid_is_a_sum_over_its_table(sides, blur):
    """By the definition of cubic interpolation, in float64; on its own grid it is the table itself."""
    config = decode(find("position", "learned_grid").Config, {"table": [5, 7], "grid": list(sides), "antialias": blur})
    scheme = config.build(6, 2).double()
    table = scheme.table.detach().numpy().reshape(5, 7, 6)
    coords = grid(*sides)
    found = scheme.embed(coords)[0].detach().numpy()
    for (row, column), given in zip(coords[0].tolist(), found):
        down, across = weights_of(row, sides[0], 5, blur), weights_of(column, sides[1], 7, blur)
        np.testing.assert_allclose(given, np.einsum("i,j,ijd->d", down, across, table), rtol=0, atol=1e-12)
    if sides == (5, 7):
        assert torch.equal(scheme.stretched(), scheme.table)
    some = coords[:, [3, 1, 8]]
    assert torch.equal(scheme.embed(some), scheme.embed(coords)[:, [3, 1, 8]])


def test_learned_grid_says_what_is_outside():
    scheme = decode(find("position", "learned_grid").Config, {"table": [4, 4], "grid": [2, 3]}).build(6, 2)
    with pytest.raises(DataError, match="row 2, column 1, outside of the grid of 2 by 3 patches: resize the pictures"):
        scheme.embed(torch.tensor([[[2, 1]]]))
    for settings, axes, why in (
        ({}, 1, "reads rows and columns, and this trunk's tokens have 1 axes"),
        ({"table": [0, 3]}, 2, "table"),
        ({"grid": [3, 5000]}, 2, "grid"),
    ):
        with pytest.raises(ConfigError, match=why) as caught:
            decode(find("position", "learned_grid").Config, settings).build(6, axes)
        assert "\n" not in str(caught.value)


def test_a_class_token_has_its_own_row_of_a_grid_and_registers_have_none():
    trunk = {"inputs": ["image"], "class_token": True, "registers": 2, "width": 8, "depth": 0, "final_norm": False}
    streams = {"image": decode(find("modality", "image").Config, {"tokenizer": {"patch": 2, "channels": 1}}).build()}
    position = {"kind": "learned_grid", "table": [2, 2], "class_row": True}
    made = Trunk(decode(Trunk.Config, {**trunk, "position": position}), streams, {})
    stream = Stream(torch.zeros(1, 1, 4), torch.tensor([[[1, 0]]]))
    x = made({"image": stream}).x[0]
    assert torch.equal(x[0], made.tokens[0] + made.position.first)
    assert torch.equal(x[1:3], made.tokens[1:])
    assert torch.equal(x[3], made.embeds["image"](stream.values)[0, 0] + made.position.table[2])
    with pytest.raises(ConfigError, match="has a row for a class token, which this trunk has not"):
        Trunk(decode(Trunk.Config, {**trunk, "class_token": False, "position": position}), streams, {})
