"""Series: patches and bins against the published ones, scales that travel, files, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sevenfold.blocks.tokenization._series import waves
from sevenfold.core.errors import BadSample, DataError
from sevenfold.core.part import find


def fitted(kind, raws, **settings):
    made = find("tokenization", kind).Config(**settings).build()
    made.fit(raws)
    return made


def test_patches_are_those_of_patchtst():
    from transformers import PatchTSTConfig
    from transformers.models.patchtst.modeling_patchtst import PatchTSTPatchify

    raws = waves(1, 4, 64, 3)
    made = fitted("series_patch", raws, patch=16, stride=8, instance_norm=True)
    values = raws[0][:48]
    mean, std = values.astype(np.float64).mean(0), values.astype(np.float64).std(0)
    twin = PatchTSTPatchify(PatchTSTConfig(context_length=48, patch_length=16, patch_stride=8, num_input_channels=3))
    wanted = twin(torch.tensor((values - mean) / std)[None])[0].permute(1, 2, 0).reshape(5, -1)  # [n P C]
    assert np.abs(made.encode(values).values - wanted.numpy()).max() < 1e-5


@pytest.mark.parametrize("settings", [{"patch": 8}, {"patch": 8, "stride": 3}, {"patch": 100}])
def test_patches_come_back_with_their_scale(settings):
    raws = [1000 + 50 * wave for wave in waves(2, 6, 50, 2)]
    made = fitted("series_patch", raws, **settings)
    for raw in raws:
        tokens = made.encode(raw)
        back = made.decode(*tokens[:2])
        assert len(back) >= len(raw)
        assert np.abs(back[: len(raw)] - raw).max() < 1e-3  # of 1000, in float32
        assert find("modality", "series").Config().build().error(raw, back) < 1e-5


def test_a_small_change_far_from_zero_is_seen():
    """Standard deviations are numpy's in float64, though squares of the values are 10^14 times theirs."""
    raws = [
        (16_000_000 + 2 * np.random.default_rng(n).integers(0, 3, (40 + n, 2))).astype(np.float32) for n in range(3)
    ]
    raws[1][5:9, 0] = np.nan
    made, every = fitted("series_patch", raws, patch=4), np.concatenate(raws).astype(np.float64)
    np.testing.assert_allclose(made.mean, np.nanmean(every, 0), rtol=1e-14)
    np.testing.assert_allclose(made.std, np.nanstd(every, 0), rtol=1e-7)
    assert fitted("series_patch", [np.full(30, 0.1, np.float32), np.full(7, 0.1, np.float32)]).std.tolist() == [1.0]


def test_missing_values():
    raw = waves(0)[0].copy()
    raw[5:9] = np.nan
    made = fitted("series_patch", [raw], patch=4)
    assert np.isfinite(made.encode(raw).values).all()
    assert not made.encode(raw).values.reshape(-1)[5:9].any()
    bins = find("tokenization", "series_bin").Config().build()
    tokens = bins.encode(raw)
    back = bins.decode(*tokens[:2])
    assert np.array_equal(np.isnan(back), np.isnan(raw)) and len(tokens.values) == len(raw) - 4 + 1
    with pytest.raises(ValueError, match="all are missing"):
        bins.encode(np.full(4, np.nan))


def chronos(values):
    """Chronos' ids by its own definition, in torch."""
    centres = torch.linspace(-15, 15, 4093, dtype=torch.float64)
    edges = torch.cat([torch.tensor([-1e20]), (centres[1:] + centres[:-1]) / 2, torch.tensor([1e20])])
    scaled = torch.tensor(values, dtype=torch.float64)
    scaled = scaled / scaled.abs().mean()
    return torch.bucketize(scaled, edges, right=True) + 2


def test_bins_are_those_of_chronos():
    made = find("tokenization", "series_bin").Config(octaves=False).build()
    for raw in [*waves(3), np.r_[waves(3)[0], 1e6].astype(np.float32)]:
        assert np.array_equal(made.encode(raw).values, chronos(raw).numpy())
    assert made.size == 4096 and made.encode(np.zeros(5)).values.tolist() == [2049] * 5


def test_bin_edges_are_exact():
    made = find("tokenization", "series_bin").Config(octaves=False).build()
    edges = made._edges[1:-1]
    for values, wanted in ((edges, np.arange(1, 4093)), (np.nextafter(edges, -99), np.arange(4092))):
        assert np.array_equal(made._bins(values), wanted)
    draw = np.random.default_rng(0).normal(0, 8, 2000)
    assert np.array_equal(made._bins(draw), np.abs(draw[:, None] - made.centres).argmin(1))


@pytest.mark.parametrize("scale", [1e-20, 1.0, 3e4, 1e20])
def test_octaves_bring_the_scale_back(scale):
    made, raw = find("tokenization", "series_bin").Config().build(), waves(4)[0]
    back = made.decode(*made.encode(raw * np.float32(scale))[:2])
    step = 2**0.5 * np.abs(raw).mean() * 30 / 4092 / 2
    assert np.abs(back / scale - raw).max() < step * 1.01


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (np.zeros(0), "empty"),
        (np.array([1.0, np.inf]), "must be finite"),
        (np.zeros((2, 2, 2)), r"not \[2, 2, 2\]"),
        (np.array(["a"]), "of numbers"),
        ([1.0, 2.0], "not list"),
        (np.zeros((9, 3)), "3 channels"),
    ],
)
@pytest.mark.parametrize("kind", ["series_patch", "series_bin"])
def test_bad_series_are_told(kind, wrong, why):
    with pytest.raises(ValueError, match=why) as caught:
        fitted(kind, waves(0)).encode(wrong)
    assert "\n" not in str(caught.value)


def test_gaps_and_mixed_channels_are_refused():
    with pytest.raises(DataError, match="leaves gaps"):
        fitted("series_patch", waves(0), patch=4, stride=5)
    with pytest.raises(DataError, match="1 and 2 channels"):
        fitted("series_patch", [*waves(0), *waves(0, channels=2)])


def test_a_table_is_cut_in_time(tmp_path):
    path = tmp_path / "a.csv"
    days = [f"2020-{m:02}-{d:02},{m * 100 + d},{'NA' if d == 3 else d},x" for m in range(1, 13) for d in range(1, 26)]
    path.write_text("\n".join(["date,a,b,c", *days, ""]))
    source = find("source", "series")
    made = source.Config(path=str(path), length=20, hop=5, held_out=0.2).build()
    train, held_out = made.split()
    last = max(float(made[index]["series"][:, 0].max()) for index in train)
    assert last < min(float(made[index]["series"][:, 0].min()) for index in held_out)
    assert made[0]["series"].shape == (20, 2) and np.isnan(made[0]["series"][2, 1])
    assert len(held_out) == 3 and source.recognises(path) > 0.5 and made.names == ["a", "b"]
    with pytest.raises(DataError, match="did you mean"):
        source.Config(path=str(path), columns=["aa"]).build()
    with pytest.raises(DataError, match="'x', not a number"):
        source.Config(path=str(path), columns=["c"]).build()
    with pytest.raises(DataError, match="too few for pieces"):
        source.Config(path=str(path), length=290).build()


def test_archive_files(tmp_path):
    path = tmp_path / "a.ts"
    path.write_text("#x\n@problemName a\n@classLabel true 1 2\n@data\n1,2,?:4,5,6:1\n1,2:3,4:2\n1,2:3:1\n1,b:3,4:1\n")
    made = find("source", "series").Config(path=str(path)).build()
    assert made.fields == {"series": "series", "label": "label"} and made[1]["label"] == "2"
    assert np.array_equal(made[0]["series"], np.array([[1, 4], [2, 5], [np.nan, 6]], np.float32), equal_nan=True)
    for place, why in ((2, "channels of 2 and 1 values"), (3, "'b', not a number")):
        with pytest.raises(BadSample, match=why):
            made[place]
