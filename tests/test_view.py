"""Views: deterministic given the generator, and each against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, find
from sevenfold.core.rooms import kinds


def made(kind: str, **settings):
    return decode(find("view", kind).Config, settings).build()


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


TAKES = (np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "ACGTN" * 200)


@pytest.mark.parametrize("kind", kinds("view"))
def test_a_view_is_a_function_of_item_and_generator(kind):
    view, taken = made(kind), 0
    for raw in TAKES:
        before = raw.copy() if isinstance(raw, np.ndarray) else raw
        try:
            results = [view(raw, draw(seed)) for seed in (3, 3)]
        except ConfigError:
            with pytest.raises(ConfigError, match="take it out of views"):
                view(raw, draw())
            continue
        taken += 1
        assert type(results[0]) is type(raw)
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_array_equal(raw, before)
    assert taken


@pytest.mark.parametrize("pixels", [1, 2, 3, 9])
def test_shift_is_a_loop(pixels):
    view = made("shift", pixels=pixels)
    image = np.random.default_rng(1).random((4, 5, 2)).astype(np.float32) + 1
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


def test_reverse_complement():
    always, never = made("reverse_complement", probability=1.0), made("reverse_complement", probability=0.0)
    assert always("AACGTNRy", draw()) == "rYNACGTT"
    assert never("AACG", draw()) == "AACG"
    every = "ACGTRYSWKMBDHVNacgtryswkmbdhvn"
    assert always(always(every, draw()), draw()) == every
    assert 60 < sum(made("reverse_complement")("AA", draw(seed)) == "TT" for seed in range(200)) < 140


def test_crop():
    text = "abcdefgh"
    pieces = {made("crop", length=3)(text, draw(seed)) for seed in range(200)}
    assert pieces == {text[start : start + 3] for start in range(6)}
    assert made("crop", length=8)(text, draw()) == text
    assert made("crop", length=80)(text, draw()) == text
