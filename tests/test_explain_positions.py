"""The measured properties of positions are those that theory gives them."""

from __future__ import annotations

import pytest
import torch

from sevenfold.cli import main
from sevenfold.core.rooms import kinds
from sevenfold.explain.positions import draw, profiles


@pytest.fixture(scope="module")
def line():
    return {one.kind: one for one in profiles(length=48, width=48)[0]}


def test_all_of_the_room_are_measured(line):
    """On a line, or on a plane those that are for one."""
    plane = {one.kind for one in profiles(length=36, width=48, axes=2)[0]}
    assert line.keys() | plane == set(kinds("position"))
    assert set(kinds("position")) - line.keys() == {"learned_grid", "stretched"}


@pytest.mark.parametrize(
    "kind", ["rotary", "axial_rotary", "multimodal_rotary", "alibi", "relative_bias", "sinusoidal"]
)
def test_relative_schemes_are_functions_of_the_difference(line, kind):
    assert line[kind].relative == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("kind", ["index", "coordinate_mlp", "time", "learned"])
def test_absolute_schemes_are_not(line, kind):
    assert line[kind].relative < 0.9


def test_bounded(line):
    assert line["index"].bounded == pytest.approx(16 * 48 / 47, rel=1e-6)
    assert line["rotary"].bounded == line["sinusoidal"].bounded == pytest.approx(1.0, abs=1e-3)
    assert line["alibi"].bounded > 10


def test_the_same_every_time():
    """Whatever was drawn before, and whichever schemes are beside it."""
    before = torch.get_rng_state()
    first = profiles(["time", "learned"], length=16, width=16)[0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    for one, other in zip(first[1:], profiles(["learned"], length=16, width=16)[0], strict=True):
        assert torch.equal(one.table, other.table)


def test_unique(line):
    assert line["none"].unique == 0
    assert all(one.unique == 1 for kind, one in line.items() if kind != "none")


def test_extrapolating(line):
    assert "outside the learned table" in line["learned"].refused
    assert "one_hot" in line["one_hot"].refused
    assert line["none"].near == 0.25  # a quarter of four times the length, evenly
    assert line["alibi"].near > 0.6 > line["rotary"].near
    far = profiles(["relative_bias"], length=144, width=48)[0][0]
    assert far.in_range == 1  # from distance 128 on all share a bucket, which was seen
    assert 0 < line["relative_bias"].in_range < 1  # here two buckets begin beyond the length


@pytest.mark.parametrize("axes", [2, 3])
def test_more_axes(axes):
    found, left = profiles(length=36, width=48, axes=axes)
    assert {one.kind for one in found} | {line.partition(":")[0] for line in left} == set(kinds("position"))
    assert any(line.startswith("rotary: position 'rotary' reads one axis") for line in left)
    assert next(one for one in found if one.kind == "axial_rotary").relative == pytest.approx(1.0, abs=1e-6)
    assert len(draw(found, axes).axes) == 2 * len(found)


def test_the_command(tmp_path, capsys):
    assert main(["positions", "rotary", "learned", "--length", "32", "--out", str(tmp_path / "p.png")]) == 0
    said = capsys.readouterr().out
    assert "refuses" in said and "1.000" in said
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert main(["positions", "rotery"]) == 2
    assert main(["positions", "--length", "1"]) == 2
