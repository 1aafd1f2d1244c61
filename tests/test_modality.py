"""Modalities: what every one of them must do (new files are found by themselves), and what each takes and shows."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image as Pillow

from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, encode, find
from sevenfold.core.rooms import kinds

KINDS = kinds("modality")


def made(kind: str, fit=True, **settings):
    part = find("modality", kind)
    modality = decode(part.Config, settings).build()
    if fit:
        modality.fit(part.example(0))
    return modality


def error_of(action, kind=ValueError) -> str:
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_examples_become_tokens_and_come_back(kind):
    modality = made(kind)
    raws = type(modality).example(0)
    assert len(raws) >= 8
    assert len(modality.axis_names) == modality.tokenizer.axes
    for raw in raws:
        values, coords = modality.tokens(raw)[:2]
        assert len(values)
        assert coords.shape == (len(values), len(modality.axis_names))
        back = modality.raw(values, coords)
        if modality.tokenizer.lossless:
            np.testing.assert_array_equal(back, modality.check(raw))


@pytest.mark.parametrize("kind", KINDS)
def test_check_changes_nothing_twice_and_refuses_in_one_line(kind):
    modality = made(kind)
    for raw in type(modality).example(1):
        np.testing.assert_array_equal(modality.check(modality.check(raw)), modality.check(raw))
    for wrong in (None, {"a": 1}, [[]]):
        error_of(lambda raw=wrong: modality.check(raw))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_shown(kind):
    modality = made(kind)
    raws = type(modality).example(2)
    facts = modality.summary(raws)
    assert facts
    assert all(isinstance(name, str) and "\n" not in str(value) for name, value in facts.items())
    modality.summary([])
    html = modality.html(raws[0])
    assert html.startswith("<")
    assert "<script" not in modality.html(raws[0])
    assert modality.html(modality.raw(*modality.tokens(raws[0])[:2]))


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_restored(kind, tmp_path):
    modality = made(kind)
    modality.save(tmp_path)
    other = decode(find("modality", kind).Config, encode(modality.config)).build()
    other.restore(tmp_path)
    for raw in type(modality).example(0):
        np.testing.assert_array_equal(other.tokens(raw).values, modality.tokens(raw).values)


@pytest.mark.parametrize("kind", KINDS)
def test_length_cuts(kind):
    modality = made(kind, length=1)
    assert len(modality.tokens(type(modality).example(0)[0]).values) == 1


@pytest.mark.parametrize(("kind", "ends"), [("text", True), ("protein", True), ("dna", False), ("image", False)])
def test_ends(kind, ends):
    modality = made(kind)
    assert modality.config.ends is ends
    raw = type(modality).example(0)[0]
    values, coords = modality.tokens(raw)[:2]
    inner = modality.tokenizer.encode(raw).values
    if ends:
        assert (values[0], values[-1]) == (modality.tokenizer.specials["bos"], modality.tokenizer.specials["eos"])
        np.testing.assert_array_equal(values[1:-1], inner)
        assert coords[:, 0].tolist() == list(range(len(values)))
    else:
        np.testing.assert_array_equal(values, inner)


def test_text_that_is_cut_may_be_closed_and_filled():
    plain, closed, filled = (made("text", length=6, **more) for more in ({}, {"closed": True}, {"fill": 7}))
    bos, eos = (plain.tokenizer.specials[name] for name in ("bos", "eos"))
    for text in ("abcd", "abcdefgh"):
        assert closed.tokens(text).values.tolist() == [bos, *b"abcd", eos]
    assert plain.tokens("abcdefgh").values.tolist() == [bos, *b"abcde"]
    assert closed.tokens("abcdefgh", cut=False).values.tolist() == [bos, *b"abcdefgh", eos]
    assert closed.tokens("ab").values.tolist() == [bos, *b"ab", eos]
    assert filled.tokens("ab").values.tolist() == [bos, *b"ab", eos, *[filled.tokenizer.specials["pad"]] * 2]
    filled.tokenizer.specials = {"bos": bos, "eos": eos}
    assert filled.tokens("ab").values.tolist() == [bos, *b"ab", eos, 7, 7]
    assert filled.tokens("ab").coords[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert filled.tokens("abcdefgh").values.tolist() == [bos, *b"abcde"]
    assert "fill needs a length" in error_of(lambda: made("text", fill=7), ConfigError)


def test_pictures_of_one_size():
    """The tokenizer learns of pictures as they are resized; views see them as they come, and what is decoded has that size."""
    views = [{"kind": "shift", "pixels": 1}]
    settings = {"tokenizer": {"kind": "patch", "patch": 4}, "views": views, "resize": {"shorter": 9, "crop": [8, 12]}}
    modality = made("image", fit=False, **settings)
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 256, shape, dtype=np.uint8) for shape in ((20, 30, 1), (7, 90, 1), (3, 3, 1))]
    modality.fit(pictures)
    assert modality.tokenizer.cells == (2, 3)
    for picture in pictures:
        for generator in (None, np.random.default_rng(1)):
            tokens = modality.tokens(picture, generator)
            assert tokens.values.shape == (6, 16)
            assert modality.raw(*tokens[:2]).shape == (8, 12, 1)
        back = modality.raw(*modality.tokens(picture)[:2])
        assert modality.error(picture, back) < 1e-3
    again = decode(find("modality", "image").Config, encode(modality.config))
    assert again.build().config == modality.config


def test_what_cannot_be_is_refused():
    assert "set ends to false" in error_of(lambda: made("image", ends=True).tokens(np.zeros((8, 8, 1))), ConfigError)
    assert "coordinate axes" in error_of(lambda: made("text", tokenizer="patch"), ConfigError)
    assert "did you mean 'bytes'" in error_of(lambda: made("text", tokenizer="byte"), ConfigError)
    for resize, told in (
        ({"shorter": 8, "size": [8, 8]}, "give shorter or size, not both"),
        ({"size": [8, 8], "multiple": 4}, "longest and multiple go with shorter"),
        ({"shorter": 8, "multiple": 9}, "shorter is from multiple (9)"),
        ({"shorter": 8, "longest": 7}, "to longest (7), not 8"),
    ):
        assert told in error_of(lambda resize=resize: made("image", resize=resize), ConfigError)
    for kind in ("text", "dna", "protein", "label"):
        assert "empty" in error_of(lambda kind=kind: made(kind).check(""))


def test_views_change_training_items_only():
    modality = made("dna", views=[{"kind": "reverse_complement", "probability": 1.0}])
    plain = modality.tokens("AACCGT")
    assert modality.raw(plain.values) == "AACCGT"
    assert modality.raw(modality.tokens("AACCGT", np.random.default_rng(0)).values) == "ACGGTT"


def test_text_and_letters():
    assert made("text").check(" a\n") == " a\n"
    assert made("dna").check("acgt") == "ACGT"
    assert "&lt;b&gt;" in made("text").html("<b>")
    long = made("protein").html("M" * 5000)
    assert "(3,000 more)" in long
    facts = made("dna").summary(["ACGG", "ac"])
    assert facts["G and C"] == "66.7%"
    assert facts["bases, least / median / most"] == "2 / 3 / 4"
    assert made("text").summary(["aab"])["most frequent"] == "'a' 66.7%, 'b' 33.3%"


def test_image_takes_arrays_and_pillow_pictures():
    modality = made("image")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    np.testing.assert_array_equal(modality.check(Pillow.fromarray(pixels)), pixels)
    assert modality.check(pixels[:, :, 0]).shape == (8, 12, 1)
    assert modality.check(pixels[:, :, 0] > 100).max() == 255
    assert modality.check((pixels / 255).astype(np.float64)).dtype == np.float32
    for mode, channels in [("1", 1), ("L", 1), ("P", 3), ("RGBA", 4), ("CMYK", 3), ("LA", 4)]:
        assert modality.check(Pillow.new(mode, (5, 4))).shape == (4, 5, channels)
    assert "mode F" in error_of(lambda: modality.check(Pillow.new("F", (5, 4))))
    error_of(lambda: modality.check(pixels.astype(np.int32)))
    assert modality.summary([pixels, pixels[:4]])["height, least / median / most"] == "4 / 6 / 8"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_image_is_shown_pixel_for_pixel(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, channels), dtype=np.uint8)
    html = made("image").html(pixels.astype(np.float32) / 255)
    shown = np.asarray(Pillow.open(io.BytesIO(base64.b64decode(html.split("base64,")[1].split('"')[0]))))
    np.testing.assert_array_equal(shown.squeeze(), (pixels if channels > 2 else pixels[:, :, 0]).squeeze())
    assert "pixelated" in html
    assert made("image").html(np.full((4, 4), 7.0))


def test_labels_and_numbers():
    assert made("label").summary(["b", "a", "b"])["most frequent"] == "'b' 2, 'a' 1"
    assert made("number").check("1.5") == 1.5
    assert made("number").summary([1, 2, 6])["mean"] == 3.0
    assert made("number").tokens(3).values.shape == (1, 1)
