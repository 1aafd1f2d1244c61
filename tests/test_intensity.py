"""Microscopy of many channels: classes of brightness against numpy's quantiles, markers that nobody knows, other panels."""

import numpy as np
import pytest

from sevenfold.core.cell import Micrograph
from sevenfold.core.errors import DataError
from sevenfold.core.part import find
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import Recipe

MARKERS = ("DAPI", "CD3", "CD20")


def pictures(count=20, height=8, width=12, seed=0, dtype=np.uint16):
    draw = np.random.default_rng(seed)
    return [draw.gamma(1.0, [300.0, 40.0, 5000.0], (height, width, 3)).astype(dtype) for _ in range(count)]


def made(raws=None, **config):
    tokenizer = find("tokenization", "intensity").Config(**{"bins": 8, **config}).build()
    tokenizer.fit(pictures() if raws is None else raws)
    return tokenizer


def test_each_marker_has_its_own_quantiles() -> None:
    raws = pictures()
    tokenizer = made(raws, patch=4)
    means = np.stack([[[raw[r : r + 4, c : c + 4].mean((0, 1)) for c in (0, 4, 8)] for r in (0, 4)] for raw in raws])
    for raw, mean in zip(raws, means):
        tokens = tokenizer.encode(raw)
        assert tokens.values.shape == (2 * 3 * 3,)
        for id, (row, column, marker) in zip(tokens.values, tokens.coords):
            assert id // 8 == marker
            edges = np.quantile(means[..., marker], np.arange(1, 8) / 8, method="inverted_cdf")
            assert id % 8 == (edges < mean[row, column, marker]).sum()
    shares = np.bincount(np.concatenate([tokenizer.encode(raw).values for raw in raws]), minlength=24) / (20 * 6)
    np.testing.assert_allclose(shares[:24], 1 / 8, atol=0.01)


def test_it_comes_back_nearly_and_nearer_with_more_classes() -> None:
    raws, others = pictures(), pictures(seed=1)
    modality = find("modality", "microscopy").Config().build()
    errors = []
    for bins in (2, 8, 64):
        tokenizer = made(raws, patch=1, bins=bins)
        back = [tokenizer.decode(*tokenizer.encode(raw)[:2]) for raw in others]
        assert back[0].pixels.shape == (8, 12, 3)
        errors.append(np.mean([modality.error(raw, other) for raw, other in zip(others, back)]))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.02


def test_brightness_of_one_marker_changes_no_token_of_another() -> None:
    tokenizer, raw = made(), pictures()[0]
    brighter = raw.copy()
    brighter[:, :, 1] = 60000
    first, second = tokenizer.encode(raw), tokenizer.encode(brighter)
    other = first.coords[:, 2] != 1
    assert (first.values[other] == second.values[other]).all()
    assert (second.values[~other] == 8 + 7).all()


def test_markers_go_by_name_whatever_channel_they_are_in() -> None:
    raws = [Micrograph(MARKERS, raw) for raw in pictures()]
    tokenizer = made(raws)
    assert tokenizer.markers == MARKERS
    raw, turned = raws[0], Micrograph(("CD20", "DAPI"), raws[0].pixels[:, :, [2, 0]])
    tokens, fewer = tokenizer.encode(raw), tokenizer.encode(turned)
    kept = tokens.coords[:, 2] != 1
    assert set(zip(fewer.values.tolist(), *fewer.coords.T.tolist())) == set(
        zip(tokens.values[kept].tolist(), *tokens.coords[kept].T.tolist())
    )
    assert tokenizer.decode(*fewer[:2]).markers == ("DAPI", "CD20")
    assert tokenizer.piece(int(tokens.values[0])).startswith("DAPI ")
    with pytest.raises(ValueError, match="the marker 'CD8' was not in the training data; known: DAPI, CD3, CD20"):
        tokenizer.encode(Micrograph(("DAPI", "CD8"), raw.pixels[:, :, :2]))
    assert (tokenizer.encode(raw.pixels).values == tokens.values).all()


def test_another_number_of_channels() -> None:
    tokenizer = made()
    with pytest.raises(ValueError, match=r"has 2 channels, but the intensity tokenizer knows 3 \(channel 0, ") as error:
        tokenizer.encode(pictures()[0][:, :, :2])
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="have 2 and 3 channels"):
        made([pictures()[0], pictures()[0][:, :, :2]])
    named = made(markers=MARKERS)
    assert named.markers == MARKERS
    with pytest.raises(ValueError, match="2 markers are named for 3 channels"):
        named.encode(Micrograph(("A", "B"), pictures()[0]))
    with pytest.raises(ValueError, match="'A' is named twice"):
        named.encode(Micrograph(("A", "B", "A"), pictures()[0]))


@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf])
def test_intensities_that_are_none(value) -> None:
    raw = pictures(dtype=np.float32)[0]
    raw[2, 3, 1] = value
    with pytest.raises(ValueError, match=r"the intensity at row 2, column 3 of channel 1 is .*not below 0"):
        made().encode(raw)
    with pytest.raises(ValueError, match="of channel 'CD3'"):
        made().encode(Micrograph(MARKERS, raw))


def test_patches_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="8 by 12 pixels is not a whole number of 5 by 5 patches"):
        made(patch=5)
    with pytest.raises(ValueError, match="not uint16 \\[8, 12\\]"):
        made().encode(pictures()[0][:, :, 0])


def test_it_trains_from_an_array_file(tmp_path) -> None:
    np.savez(tmp_path / "x.npz", stains=np.stack(pictures(24)))
    data = find("source", "arrays").Config(path=str(tmp_path / "x.npz"), fields={"stains": "microscopy"})
    np.savez(tmp_path / "y.npz", stains=np.stack(pictures(24))[..., [0, 1, 2, 0, 1]])
    assert find("source", "arrays").Config(path=str(tmp_path / "y.npz")).build().fields == {"stains": "microscopy"}
    recipe = Recipe.model_validate(
        {
            "data": data,
            "streams": {"stains": {"kind": "microscopy", "tokenizer": {"bins": 8}}},
            "trunks": {
                "enc": {"inputs": ["stains"], "width": 32, "depth": 1, "position": {"kind": "learned", "size": 8}}
            },
            "objective": {"kind": "masked_token"},
            "train": {"steps": 2},
        }
    )
    ready = prepare(recipe)
    batch = ready.model.tokenize(ready.samples(3))
    assert batch["stains"].coords.shape[-1] == 3
    assert np.isfinite(float(ready.objective(batch).mean.detach()))
