"""Views: each against its definition, closed forms and implementations that are not ours. Determinism, what is taken and what is
refused: the conformance kit."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage, stats

from sevenfold.core.cell import Cell, Genes, Micrograph
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, find
from sevenfold.core.rooms import kinds
from sevenfold.data.view.affine import mapped
from sevenfold.data.view.blur import gaussian
from sevenfold.data.view.resized_crop import resized
from sevenfold.data.view.rotate import rotation
from sevenfold.modality import check_views


def made(kind: str, **settings):
    return decode(find("view", kind).Config, settings).build()


def modality(kind: str, **settings):
    return decode(find("modality", kind).Config, settings).build()


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


PHOTO = draw(5).integers(0, 256, (21, 17, 3)).astype(np.uint8)
GREY = draw(6).random((16, 12, 1)).astype(np.float32)


# Pictures
@pytest.mark.parametrize("pixels", [1, 2, 3, 9])
def test_shift_is_a_loop(pixels):
    view = made("shift", pixels=pixels)
    image = draw(1).random((4, 5, 2)).astype(np.float32) + 1
    for seed in range(20):
        moved = view(image, draw(seed))
        down, across = draw(seed).integers(-pixels, pixels, 2, endpoint=True)
        for row in range(4):
            for column in range(5):
                inside = 0 <= row - down < 4 and 0 <= column - across < 5
                expected = image[row - down, column - across] if inside else 0
                np.testing.assert_array_equal(moved[row, column], expected)
        assert moved.dtype == image.dtype


def test_shift_reaches_every_place():
    image = np.zeros((3, 3, 1), np.uint8)
    image[1, 1] = 1
    places = {tuple(np.argwhere(made("shift")(image, draw(seed)))[0, :2]) for seed in range(200)}
    assert len(places) == 9


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("image", [PHOTO, GREY, PHOTO[:1], GREY[:, :1]], ids=["photo", "grey", "row", "column"])
def test_affine_reads_pictures_as_scipy(image, seed):
    matrix = np.eye(2) + draw(seed).normal(0, 0.4, (2, 2))
    shift = draw(seed).normal(0, 3, 2)
    middle = (np.array(image.shape[:2]) - 1) / 2
    offset = middle - matrix @ middle + shift
    planes = [
        ndimage.affine_transform(image[..., c].astype(float), matrix, offset, order=1) for c in range(image.shape[2])
    ]
    found = mapped(image, tuple(matrix.ravel().tolist()), tuple(shift.tolist()))
    np.testing.assert_allclose(found, np.stack(planes, -1), atol=1e-9, rtol=0)


def test_affine_turns_about_the_middle():
    """A quarter turn of a square is exact; nothing at all is the picture."""
    np.testing.assert_array_equal(made("affine", degrees=0, scale=0, slant=0, pixels=0)(PHOTO, draw()), PHOTO)
    square = PHOTO[:9, :9]
    np.testing.assert_allclose(mapped(square, (0.0, -1.0, 1.0, 0.0), (0.0, 0.0)), np.rot90(square, -1), atol=1e-9)
    turned = [made("affine", degrees=180)(PHOTO, draw(seed)) for seed in range(3)]
    assert all(one.dtype == np.uint8 and one.shape == PHOTO.shape for one in turned)


@pytest.mark.parametrize("size", [(21, 17), (8, 8), (5, 30), (1, 1), (40, 3)])
@pytest.mark.parametrize("image", [PHOTO, GREY], ids=["photo", "grey"])
def test_resizing_is_pillows_bilinear(image, size):
    scale = 1 if image.dtype == np.uint8 else 255
    planes = [
        np.asarray(
            Image.fromarray(image[..., c].astype(np.float32) * scale).resize(size[::-1], Image.Resampling.BILINEAR)
        )
        for c in range(image.shape[2])
    ]
    np.testing.assert_allclose(resized(image, *size) * scale, np.stack(planes, -1), atol=2e-4)


def test_resized_crops_are_in_range():
    """On a picture of its own coordinates the crop says where it is from."""
    rows, columns = np.meshgrid(np.arange(40), np.arange(60), indexing="ij")
    image = np.stack([rows, columns], -1).astype(np.float32)
    view = made("resized_crop", scale=(0.1, 0.5), ratio=(0.5, 2), size=(10, 12))
    areas, corners = [], []
    for seed in range(300):
        crop = view(image, draw(seed))
        assert crop.shape == (10, 12, 2)
        height, width = 10 * (crop[5, 0, 0] - crop[4, 0, 0]), 12 * (crop[0, 6, 1] - crop[0, 5, 1])
        assert 0.45 < width / height < 2.25
        areas.append(width * height / image[..., 0].size)
        corners.append(crop[0, 0].tolist())
    assert 0.09 < min(areas) < 0.13 and 0.46 < max(areas) < 0.52 and abs(np.mean(areas) - 0.3) < 0.02
    assert np.min(corners) < 1.5 and np.max(corners, 0)[0] > 20 and np.max(corners, 0)[1] > 30
    assert made("resized_crop")(PHOTO, draw()).shape == PHOTO.shape
    np.testing.assert_array_equal(
        made("resized_crop", scale=(1, 1), ratio=(1, 1))(PHOTO[:9, :9], draw()), PHOTO[:9, :9]
    )


def test_flip():
    both = made("flip", horizontal=1.0, vertical=1.0)
    np.testing.assert_array_equal(both(PHOTO, draw()), np.rot90(PHOTO, 2))
    np.testing.assert_array_equal(made("flip", horizontal=1.0)(PHOTO, draw()), np.fliplr(PHOTO))
    np.testing.assert_array_equal(made("flip", horizontal=0.0, vertical=1.0)(PHOTO, draw()), np.flipud(PHOTO))
    assert made("flip", horizontal=0.0)(PHOTO, draw()) is PHOTO
    assert 60 < sum(not np.array_equal(made("flip")(PHOTO, draw(seed)), PHOTO) for seed in range(200)) < 140


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour_is_pillows(name):
    """One change at a time; Pillow cuts off to whole numbers, and takes a whole mean grey, so within one level."""
    settings = {"brightness": 0, "contrast": 0, "saturation": 0, "grey": 0, name: 0.6}
    enhancer = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    for seed in range(5):
        place = list(enhancer).index(name)
        by = 1 + 0.6 * draw(seed).uniform(-1, 1, 3)[place]
        wanted = np.asarray(enhancer[name](Image.fromarray(PHOTO)).enhance(by), np.float64)
        found = made("colour", **settings)(PHOTO, draw(seed))
        assert np.abs(found - wanted).max() <= 1
        floats = made("colour", **settings)(PHOTO / np.float32(255), draw(seed))
        assert np.abs(floats * 255 - found).max() <= 0.501


def test_colour_out_of_pictures():
    grey = made("colour", brightness=0, contrast=0, saturation=0, grey=1.0)
    np.testing.assert_allclose(grey(PHOTO, draw())[..., 0], np.asarray(Image.fromarray(PHOTO).convert("L")), atol=1)
    assert (np.ptp(grey(PHOTO, draw()), axis=2) == 0).all()
    clear = np.concatenate([PHOTO, PHOTO[..., :1]], 2)
    np.testing.assert_array_equal(made("colour")(clear, draw(3))[..., 3], clear[..., 3])
    np.testing.assert_array_equal(made("colour")(clear, draw(3))[..., :3], made("colour")(PHOTO, draw(3)))
    assert made("colour")(GREY, draw()).shape == GREY.shape


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.7, 9.0])
def test_blur_is_scipys_gaussian(sigma):
    """Where nothing is beyond the edge: the filter over the filter of ones."""
    image = PHOTO[..., 0].astype(np.float64)

    def blurred(x):
        return ndimage.gaussian_filter(x, sigma, mode="constant", radius=round(3 * sigma))

    wanted = blurred(image) / blurred(np.ones_like(image))
    found = gaussian(21, sigma) @ image @ gaussian(17, sigma).T
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    always = made("blur", sigma=(sigma, sigma), probability=1.0)
    np.testing.assert_allclose(always(PHOTO[..., :1], draw())[..., 0], wanted, atol=0.51)
    assert made("blur", probability=0.0)(PHOTO, draw()) is PHOTO


def test_noise_is_a_share_of_what_varies():
    series = np.stack([np.sin(np.arange(4000) / 9) * 50, np.full(4000, 7.0)], 1).astype(np.float32)
    series[5, 0] = np.nan
    noise = made("noise", deviation=0.2)(series, draw()) - series
    assert np.isnan(noise[5, 0]) and (noise[:, 1] == 0).all()
    known = np.delete(noise[:, 0], 5)
    assert abs(known.std() / (0.2 * np.nanstd(series[:, 0])) - 1) < 0.05
    assert stats.kstest(known / known.std(), "norm").pvalue > 0.01
    dark = made("noise", deviation=3.0)(PHOTO, draw())
    assert dark.dtype == np.uint8 and dark.min() == 0 and dark.max() == 255  # cut off, not wrapped around
    assert np.abs(dark.astype(float) - PHOTO).mean() > 50


def test_erase_paints_one_rectangle():
    image = PHOTO.astype(np.uint8) | 1
    image[0, 0] = 0
    shares = []
    for seed in range(200):
        painted = (made("erase", scale=(0.1, 0.3), probability=1.0)(image, draw(seed)) == 0).all(2)
        painted[0, 0] = painted[0, 1] and painted[1, 0]
        rows, columns = np.flatnonzero(painted.any(1)), np.flatnonzero(painted.any(0))
        assert painted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert painted.sum() == len(rows) * len(columns)
        shares.append(painted.mean())
    assert 0.07 < min(shares) < 0.14 and 0.25 < max(shares) < 0.34
    bright = made("erase", value=1.0, probability=1.0)(GREY, draw())
    assert (bright == GREY.max()).sum() > (GREY.max() == GREY).sum()
    assert made("erase", probability=0.0)(PHOTO, draw()) is PHOTO


def test_micrographs_keep_their_markers():
    raw = Micrograph(("a", "b", "c"), PHOTO.astype(np.uint16) * 100)
    for kind in kinds("view"):
        if "microscopy" in find("view", kind).modalities:
            changed = made(kind)(raw, draw(1))
            assert changed.markers == raw.markers and changed.pixels.dtype == np.uint16


# Letters
def test_reverse_complement():
    always, never = made("reverse_complement", probability=1.0), made("reverse_complement", probability=0.0)
    assert always("AACGTNRy", draw()) == "rYNACGTT"
    assert never("AACG", draw()) == "AACG"
    every = "ACGTRYSWKMBDHVNacgtryswkmbdhvn"
    assert always(always(every, draw()), draw()) == every
    assert 60 < sum(made("reverse_complement")("AA", draw(seed)) == "TT" for seed in range(200)) < 140
    with pytest.raises(ConfigError, match="text with 'x' in it: take it out of views"):
        always("AxT", draw())


def test_crop():
    text = "abcdefgh"
    pieces = {made("crop", length=3)(text, draw(seed)) for seed in range(200)}
    assert pieces == {text[start : start + 3] for start in range(6)}
    assert made("crop", length=8)(text, draw()) == text
    assert made("crop", length=80)(text, draw()) == text
    lengths = Counter(len(made("crop", share=(0.25, 0.75))(text, draw(seed))) for seed in range(400))
    assert sorted(lengths) == [2, 3, 4, 5, 6]
    assert len(made("crop", share=(0.01, 0.01))(text, draw())) == 1
    series = np.arange(20.0, dtype=np.float32).reshape(10, 2)
    piece = made("crop", length=4)(series, draw())
    np.testing.assert_array_equal(piece, series[int(piece[0, 0]) // 2 :][:4])
    series[3:] = np.nan
    assert all(np.isfinite(made("crop", length=2)(series, draw(seed))).any() for seed in range(20))


def test_mutations_are_as_often_and_as_even_as_they_say():
    text = "ACGT" * 5000
    changed = made("mutate", rate=0.1, alphabet="ACGT")(text, draw())
    pairs = Counter((a, b) for a, b in zip(text, changed) if a != b)
    count = sum(pairs.values())
    assert abs(count - 2000) < 4 * math.sqrt(20000 * 0.1 * 0.9)
    assert len(pairs) == 12 and stats.chisquare(list(pairs.values())).pvalue > 0.001
    own = made("mutate", rate=1.0)("abab", draw())
    assert own == "baba"  # the only other letter
    assert made("mutate", rate=1.0)("aaaa", draw()) == "aaaa"
    assert set(made("mutate", rate=1.0, alphabet="CG")("N" * 50, draw())) == {"C", "G"}
    with pytest.raises(ConfigError, match="fewer than two letters"):
        made("mutate", alphabet="AA")


def test_masked_atoms_are_atoms():
    text = "C[C@H](Cl)c1ccccc1%12Br"
    assert made("mask_atoms", rate=1.0)(text, draw()) == "**(*)*1*****1%12*"
    assert made("mask_atoms", rate=0.0)(text, draw()) == text
    share = np.mean([made("mask_atoms", rate=0.3)("C" * 100, draw(seed)).count("*") for seed in range(50)]) / 100
    assert abs(share - 0.3) < 0.03


# Cells
GENES = Genes(f"G{number}" for number in range(300))


def test_thinned_counts_are_binomial():
    counts = np.full(300, 20, np.float32)
    cell = Cell(GENES, np.arange(300), counts)
    thinned = [made("thin", share=(0.6, 0.6))(cell, draw(seed)) for seed in range(40)]
    every = np.concatenate([[one.named.get(gene, 0) for gene in GENES.names] for one in thinned])
    found = np.bincount(every.astype(int), minlength=21)
    wanted = stats.binom.pmf(np.arange(21), 20, 0.6) * len(every)
    kept = wanted > 5
    joined = [np.append(x[kept], x[~kept].sum()) for x in (found, wanted)]
    assert stats.chisquare(*joined).pvalue > 0.001
    shares = [made("thin", share=(0.2, 0.9))(cell, draw(seed)).counts.sum() / 6000 for seed in range(200)]
    assert 0.18 < min(shares) < 0.25 and 0.85 < max(shares) < 0.92 and abs(np.mean(shares) - 0.55) < 0.05


def test_thinning_of_counts_that_are_not_whole_keeps_their_mean():
    cell = Cell(GENES, np.arange(300), np.full(300, 0.4))
    found = np.mean([made("thin", share=(0.5, 0.5))(cell, draw(seed)).counts.sum() / 300 for seed in range(60)])
    assert abs(found - 0.2) < 0.01


@pytest.mark.parametrize("kind", ["thin", "drop_genes"])
def test_something_of_a_cell_stays(kind):
    settings = {"share": (0.01, 0.01)} if kind == "thin" else {"rate": 0.99}
    cell = Cell(GENES, np.array([4, 9, 2]), np.array([0.0, 2.0, 1.0]))
    for seed in range(40):
        named = made(kind, **settings)(cell, draw(seed)).named
        assert len(named) >= 1 and set(named) <= {"G9", "G2"}


def test_drop_genes():
    cell = Cell(GENES, np.arange(300), np.arange(1.0, 301))
    found = [made("drop_genes", rate=0.25)(cell, draw(seed)) for seed in range(40)]
    assert abs(np.mean([len(one.at) for one in found]) / 300 - 0.75) < 0.02
    assert all((one.counts == one.at + 1).all() for one in found)


# Clouds
CLOUD = (draw(8).normal(0, (3, 1, 0.5, 9), (200, 4)) + (5, -2, 1, 0)).astype(np.float32)


@pytest.mark.parametrize("axis", [(0.0, 0.0, 2.0), (1.0, 1.0, 0.0), None])
def test_rotations_keep_distances_and_the_middle(axis):
    turned = made("rotate", axis=axis)(CLOUD, draw(3))
    np.testing.assert_array_equal(turned[:, 3], CLOUD[:, 3])
    np.testing.assert_allclose(turned[:, :3].mean(0), CLOUD[:, :3].mean(0), atol=1e-4)
    away = [np.linalg.norm(x[:, None, :3] - x[:, :3], axis=2) for x in (turned, CLOUD)]
    np.testing.assert_allclose(*away, atol=1e-4)
    moved = turned[:, :3] - CLOUD[:, :3]
    assert np.abs(moved).max() > 0.5
    if axis is not None:
        np.testing.assert_allclose(moved @ axis, 0, atol=1e-4)


def test_a_quaternion_is_scipys_rotation():
    from scipy.spatial.transform import Rotation

    for seed in range(5):
        quaternion = draw(seed).standard_normal(4)
        np.testing.assert_allclose(
            rotation(quaternion), Rotation.from_quat(np.roll(quaternion, -1)).as_matrix(), atol=1e-12
        )


def test_any_rotation_is_uniform():
    """Where the x axis goes is uniform on the sphere, so each coordinate is uniform in -1…1."""
    points = np.array([[1, 0, 0], [-1, 0, 0]], np.float32)
    goes = np.array([made("rotate", axis=None)(points, draw(seed))[0] for seed in range(500)])
    assert all(stats.kstest(goes[:, axis], "uniform", (-1, 2)).pvalue > 0.01 for axis in range(3))


def test_rescaled_clouds():
    factors = []
    for seed in range(200):
        grown = made("rescale", factor=(0.5, 2))(CLOUD, draw(seed))
        np.testing.assert_allclose(grown[:, :3].mean(0), CLOUD[:, :3].mean(0), atol=1e-4)
        np.testing.assert_array_equal(grown[:, 3], CLOUD[:, 3])
        factors.append(grown[:, 0].std() / CLOUD[:, 0].std())
    assert stats.kstest(np.log2(factors), "uniform", (-1, 2)).pvalue > 0.01


def test_jitter_is_a_share_of_the_size():
    away = made("jitter", deviation=0.1)(CLOUD, draw())[:, :3] - CLOUD[:, :3]
    size = math.sqrt(np.square(CLOUD[:, :3] - CLOUD[:, :3].mean(0)).sum(1).mean())
    assert abs(away.std() / (0.1 * size) - 1) < 0.1 and np.abs(away).max() <= 0.3001 * size
    structure = draw(1).normal(0, 5, (20, 3, 3))
    structure[4, 2] = np.nan
    moved = made("jitter")(structure, draw())
    np.testing.assert_array_equal(np.isnan(moved), np.isnan(structure))
    assert np.nanmax(np.abs(moved - structure)) > 0.05


def test_points_that_stay():
    for kind in ("drop_points", "crop_points"):
        for seed in range(20):
            kept = made(kind, share=(0.3, 0.3))(CLOUD, draw(seed))
            places = [int(np.flatnonzero((one == CLOUD).all(1))[0]) for one in kept]
            assert len(kept) == 60 and places == sorted(places)
            if kind == "crop_points":
                far = np.linalg.norm(CLOUD[:, None, :3] - CLOUD[:, :3], axis=2)
                near = {frozenset(np.argsort(row, kind="stable")[:60].tolist()) for row in far}
                assert frozenset(places) in near
    often = np.bincount(
        [
            int(made("drop_points", share=(0.5, 0.5))(np.eye(8, 3) + np.arange(8)[:, None], draw(s))[0, 2])
            for s in range(99)
        ]
    )
    assert len(often) > 2
    assert len(made("drop_points", share=(0.01, 0.01))(CLOUD[:3], draw())) == 1


# Series
def test_gain_is_a_factor_of_each_channel():
    series = draw(2).normal(0, (1, 5), (50, 2)).astype(np.float32)
    factors, generator = [], draw()
    for _ in range(400):
        by = made("gain", factor=(0.5, 2))(series, generator) / series
        np.testing.assert_allclose(by, np.broadcast_to(by[:1], by.shape), rtol=1e-5)
        factors += by[0].tolist()
    assert stats.kstest(np.log2(factors), "uniform", (-1, 2)).pvalue > 0.01
    sound = made("gain", factor=(9, 9))(np.array([0.5, -0.05], np.float32), draw())
    np.testing.assert_allclose(modality("audio").within(sound), [1, -0.45])


def test_dropped_channels_are_missing():
    series = np.ones((5, 40), np.float32)
    gone = np.mean([np.isnan(made("drop_channels", rate=0.3)(series, draw(seed))).mean() for seed in range(60)])
    assert abs(gone - 0.3) < 0.03
    series = np.ones((5, 3), np.float32)
    series[:, 1:] = np.nan
    assert all(made("drop_channels", rate=0.9)(series, draw(seed))[0, 0] == 1 for seed in range(20))
    assert made("drop_channels")(series[:, 0], draw()) is not None


def test_dropped_columns_are_missing():
    row = {f"c{place}": float(place) for place in range(40)}
    lost = np.mean([list(made("drop_columns", rate=0.3)(row, draw(seed)).values()).count(None) for seed in range(60)])
    assert abs(lost / 40 - 0.3) < 0.03
    thin = {"a": None, "b": "word", "c": None}
    assert all(made("drop_columns", rate=0.9)(thin, draw(seed)) == thin for seed in range(20))


# What a modality does not have
@pytest.mark.parametrize(
    ("view", "of", "told"),
    [
        ("affine", "text", "affine changes items of image and microscopy, not of text"),
        ("thin", "image", "thin changes items of cells, not of image"),
        ("rotate", "series", "rotate changes items of points and structure, not of series"),
        ("reverse_complement", "protein", "reverse_complement changes items of dna, not of protein"),
        (
            "crop",
            "image",
            "crop changes items of text, dna, protein, series, audio, actions and structure, not of image",
        ),
        ("noise", "points", "noise changes items of image, microscopy, series and audio, not of points"),
        ("noise", "label", "not of label"),
    ],
)
def test_views_that_a_modality_does_not_have_are_refused(view, of, told):
    """Also where the arrays would look alike: a cloud [n 3] and a series [n 3]."""
    with pytest.raises(ConfigError, match=f"^objective.views: .*{told}: take it out of views$"):
        check_views([made(view)], modality(of), "objective.views")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("crop", {"share": (0.0, 0.5)}),
        ("thin", {"share": (0.9, 0.5)}),
        ("resized_crop", {"scale": (0.5, 1.5)}),
        ("resized_crop", {"size": (0, 4)}),
        ("gain", {"factor": (-1.0, 1.0)}),
        ("blur", {"sigma": (0.0, 1.0)}),
        ("rotate", {"axis": (0.0, 0.0, 0.0)}),
        ("drop_genes", {"rate": 1.0}),
    ],
)
def test_amounts_that_cannot_be_are_refused(kind, settings):
    with pytest.raises(ConfigError, match=next(iter(settings))) as error:
        made(kind, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", kinds("view"))
def test_what_is_no_item_at_all_is_refused(kind):
    for raw in (None, 3, [], object()):
        with pytest.raises(
            ConfigError, match=f"^the {kind} view changes .*, not (NoneType|int|list|object): take it out of views$"
        ):
            made(kind)(raw, draw())
