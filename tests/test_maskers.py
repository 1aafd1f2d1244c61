"""Maskers: what each hides, beside what every one must do (the kit); ratios and axes that are refused."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage

from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, find
from sevenfold.objective.masker import Masker
from sevenfold.objective.masker._axis import numbered
from sevenfold.objective.masker._block import distances
from sevenfold.objective.masker.grid import cells
from tiny import made, recipe


def masker(kind: str, **settings) -> Masker:
    return find("masker", kind).Config(**settings).build()


def picture(rows: int, columns: int, b: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    return places.expand(b, -1, -1), torch.ones(b, rows * columns, dtype=torch.bool)


def hidden(kind: str, coords, eligible, count: int, **settings) -> torch.Tensor:
    torch.manual_seed(0)
    return masker(kind, **settings).choose(coords, eligible, torch.full((len(coords),), count))


def whole_boxes(mask: torch.Tensor) -> torch.Tensor:
    """[b]: how many tokens of each picture's bounding box are not hidden."""
    found = []
    for one in mask.numpy():
        rows, columns = one.any(1).nonzero()[0], one.any(0).nonzero()[0]
        found.append((rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1) - one.sum())
    return torch.tensor(found)


@pytest.mark.parametrize("count", [9, 24, 49, 90])
def test_a_block_is_a_box(count):
    """One piece without holes: what its bounding box lacks is less than one side of it."""
    mask = hidden("block", *picture(10, 14), count).view(200, 10, 14)
    for one in mask.numpy():
        assert ndimage.label(one)[1] == 1
        assert not (ndimage.binary_fill_holes(one) & ~one).any()
    assert int(whole_boxes(mask).max()) < 14
    sides = torch.stack([mask.any(2).sum(1), mask.any(1).sum(1)])
    assert len({tuple(side) for side in sides.T.tolist()}) > 3, "boxes of several shapes"


def test_a_block_in_one_dimension_is_a_run():
    coords = torch.arange(40)[None, :, None].expand(300, -1, -1)
    mask = hidden("block", coords, torch.ones(300, 40, dtype=torch.bool), 12)
    edges = (mask[:, 1:] != mask[:, :-1]).sum(1)
    assert int(edges.max()) <= 2 and mask.float().mean(0).min() > 0.05


def test_distances_against_a_loop():
    """The metric of a box, for points: with an aspect of 1 it is the largest difference in units of the cloud's extent; scaling
    an axis changes nothing; tokens that are not eligible have no part in it."""
    torch.manual_seed(1)
    coords = torch.randn(6, 30, 3, dtype=torch.float64)
    eligible = torch.rand(6, 30) < 0.8
    torch.manual_seed(2)
    found = distances(coords, eligible, 1.0)
    torch.manual_seed(2)
    chance = torch.rand(6, 7).double()
    for row in range(6):
        inside = coords[row][eligible[row]]
        low, extent = inside.amin(0), inside.amax(0) - inside.amin(0)
        n = len(inside)
        centre = (inside[int(chance[row, 0] * n)] - low) / extent + (chance[row, 1:4] - 0.5) / n ** (1 / 3)
        for place in range(30):
            away = [abs(float((coords[row, place, a] - low[a]) / extent[a] - centre[a])) for a in range(3)]
            wanted = (max(away) + 1e-3 * sum(away) / 3) / 1.001
            assert float(found[row, place]) == pytest.approx(wanted, rel=1e-9)
    torch.manual_seed(2)
    stretched = distances(coords * torch.tensor([1.0, 50.0, 0.01]), eligible, 1.0)
    torch.testing.assert_close(stretched[eligible], found[eligible])


def test_blocks_of_a_cloud_and_of_a_flat_one():
    """A cloud that lies in a plane, and one in a point, have blocks too."""
    cloud = torch.randn(50, 64, 3)
    cloud[:, :, 2] = 1.5
    cloud[:10] = 0.0
    assert hidden("block", cloud, torch.ones(50, 64, dtype=torch.bool), 20).sum(1).eq(20).all()


def test_several_blocks():
    """At most so many pieces, and more than one usually; one block is a block."""
    pieces = [ndimage.label(one)[1] for one in hidden("multi_block", *picture(12, 12), 50, blocks=4).view(-1, 12, 12)]
    assert max(pieces) <= 4 and sum(count > 1 for count in pieces) > 100
    one = hidden("multi_block", *picture(12, 12), 50, blocks=1)
    assert torch.equal(one, hidden("block", *picture(12, 12), 50))


def test_a_lattice():
    """At 3/4 one of each 2 x 2 is seen, at 15/16 one of each 4 x 4, at 1/2 a chequerboard; the same of lines and cubes."""
    coords, eligible = picture(8, 8, 40)
    for count, step in ((48, 2), (60, 4)):
        seen = ~hidden("grid", coords, eligible, count).view(-1, 8, 8)
        offsets = set()
        for one in seen:
            row, column = one.nonzero()[0].tolist()
            wanted = torch.zeros(8, 8, dtype=torch.bool)
            wanted[row % step :: step, column % step :: step] = True
            assert torch.equal(one, wanted)
            offsets.add((row % step, column % step))
        assert len(offsets) == step**2 or step == 4 and len(offsets) > 8
    half = hidden("grid", coords, eligible, 32).view(-1, 8, 8)
    assert (half[:, 1:] != half[:, :-1]).all() and (half[..., 1:] != half[..., :-1]).all()
    line = torch.arange(16)[None, :, None].expand(40, -1, -1)
    seen = ~hidden("grid", line, torch.ones(40, 16, dtype=torch.bool), 12)
    gaps = [one.nonzero()[:, 0].diff().tolist() for one in seen]
    assert all(gap == [4, 4, 4] for gap in gaps)
    cube = torch.cartesian_prod(*[torch.arange(4)] * 3).expand(40, -1, -1)
    seen = ~hidden("grid", cube, torch.ones(40, 64, dtype=torch.bool), 56).view(-1, 4, 4, 4)
    corners = [seen[:, a::2, b::2, c::2].sum((1, 2, 3)) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    assert torch.stack(corners).sort(0).values.T.tolist() == [[0] * 7 + [8]] * 40


def test_a_lattice_in_a_cloud_is_in_space():
    """Real coordinates fall into about as many cells as there are tokens, whatever their units; whole numbers are counted as
    they are, from the first token that is eligible."""
    torch.manual_seed(0)
    cloud = torch.rand(30, 64, 3) * torch.tensor([1.0, 10.0, 0.1]) - 4
    x = cells(cloud, torch.ones(30, 64, dtype=torch.bool))
    assert x.amin() == 0 and x.amax() == 3
    assert torch.equal(
        cells(torch.tensor([[[5], [7], [9]]]), torch.tensor([[False, True, True]])), torch.tensor([[[0], [0], [2]]])
    )


@pytest.mark.parametrize(("kind", "axis"), [("time", 0), ("channel", 1)])
def test_whole_slices(kind, axis):
    """All tokens of one row (or column) go together; where the number is no whole slice, one is hidden in part."""
    shape = (6, 9)
    mask = hidden(kind, *picture(*shape), 3 * shape[1 - axis]).view(200, *shape)
    assert (mask == mask.any(2 - axis, keepdim=True)).all()
    whole = mask.any(2 - axis).float().mean(0)
    assert whole.min() > 0.15 and whole.sum() == pytest.approx(3, abs=1e-4)
    part = hidden(kind, *picture(*shape), 3 * shape[1 - axis] + 2).view(200, *shape)
    broken = part.any(2 - axis) & ~part.all(2 - axis)
    assert broken.sum(1).eq(1).all()


def test_channel_is_the_last_axis():
    """Of (row, column, marker), a marker; whatever numbers channels have."""
    places = torch.cartesian_prod(torch.arange(3), torch.arange(3), torch.tensor([2, 40, 7, 11])).expand(20, -1, -1)
    mask = hidden("channel", places, torch.ones(20, 36, dtype=torch.bool), 18).view(20, 9, 4)
    assert (mask == mask.any(1, keepdim=True)).all() and mask.any(1).sum(1).eq(2).all()


def test_slices_are_numbered_in_their_order():
    values = torch.tensor([[5.0, 2.5, 5.0, 9.0, 2.5], [1.0, 1.0, 0.0, 3.0, 3.0]])
    eligible = torch.tensor([[True] * 5, [True, True, False, True, True]])
    assert numbered(values, eligible).tolist() == [[1, 0, 1, 2, 0], [0, 0, 2, 1, 1]]


def test_blocks_reach_the_edges():
    """No token of a picture is hidden less than a fifth as often as another."""
    for kind in ("block", "multi_block", "grid", "random", "span", "time", "channel"):
        rate = hidden(kind, *picture(7, 7, 2000), 24).float().mean(0)
        assert rate.min() > 0.2 * rate.max(), (kind, rate.view(7, 7))


# With objectives


@pytest.mark.parametrize("kind", ["random", "span", "block", "multi_block", "grid", "time", "channel"])
def test_mae_hides_by_any_masker(kind, tmp_path):
    """As many patches as the ratio says, those that the masker means."""
    data = recipe("mae", tmp_path)
    data["objective"] |= {"masker": kind, "ratio": 0.5}
    ready = made(data)
    batch = {"image": ready.model.tokenize(ready.source[0]["image"][None])["image"]}
    torch.manual_seed(0)
    score = ready.objective.draw(batch)["score"]
    visible, gone = ready.objective.split(batch["image"], score)
    assert visible.shape == gone.shape == (1, 8)
    torch.manual_seed(0)
    stream = batch["image"]
    wanted = masker(kind).choose(stream.coords, torch.ones(1, 16, dtype=torch.bool), torch.tensor([8]))
    ties = kind in ("span", "time", "channel")  # which of a slice that is hidden in part is nobody's say
    assert ties or torch.equal(gone.sort(1).values, wanted.nonzero()[:, 1][None])
    assert float(ready.objective(batch).count) == 8


@pytest.mark.parametrize("kind", ["random", "span", "block", "multi_block", "grid", "time"])
def test_masked_token_hides_by_any_masker(kind, tmp_path):
    data = recipe("masked_token", tmp_path)
    data["objective"] |= {"masker": kind, "ratio": 0.25}
    ready = made(data)
    batch = ready.model.tokenize(["the wall falls on the red sea"])
    chosen = ready.objective.choose(batch["text"])[0]
    assert int(chosen.sum()) == round(0.25 * 29) and not chosen[0] and not chosen[-1]


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 1.5])
@pytest.mark.parametrize("kind", ["mae", "masked_token"])
def test_ratios_that_hide_nothing_or_all_are_refused(kind, ratio, tmp_path):
    data = recipe(kind, tmp_path)
    data["objective"]["ratio"] = ratio
    with pytest.raises(ConfigError, match=r"objective\.ratio: .*(greater|less) than") as error:
        made(data)
    assert "\n" not in str(error.value)


def test_maskers_that_need_more_axes_are_refused(tmp_path):
    data = recipe("masked_token", tmp_path)
    data["objective"]["masker"] = "channel"
    with pytest.raises(
        ConfigError, match=r"objective\.masker: channel needs tokens with 2 coordinate axes, and those of text"
    ):
        made(data)
    with pytest.raises(ConfigError, match="did you mean 'block'"):
        decode(find("objective", "mae").Config, {"masker": "blok"})
