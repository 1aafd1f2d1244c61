"""preprocessor_config.json against the processors of transformers (those that work with Pillow): bytes, numbers, and vectors
of a published folder, for real pictures of any size; and the way back."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from PIL import Image as Pillow
from sklearn.datasets import load_sample_image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from twins import published

import sevenfold as sf
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, encode, find
from sevenfold.exchange import origin
from sevenfold.exchange.verify import verify
from sevenfold.family._pictures import prepared, written

CHINA, FLOWER = (load_sample_image(f"{name}.jpg") for name in ("china", "flower"))
CASES = [
    (ViTImageProcessorPil, {"size": {"height": 60, "width": 44}}),
    (ViTImageProcessorPil, {"size": {"shortest_edge": 48}, "resample": 1, "image_std": [0.2, 0.3, 0.4]}),
    (ViTImageProcessorPil, {"size": 40, "resample": 0, "do_normalize": False}),
    (ViTImageProcessorPil, {"size": 40, "do_center_crop": True, "crop_size": {"height": 33, "width": 50}}),
    (ViTImageProcessorPil, {"do_resize": False, "rescale_factor": 1 / 127.5, "resample": 3}),
    (CLIPImageProcessorPil, {"size": {"shortest_edge": 64}, "crop_size": 56}),
    (CLIPImageProcessorPil, {"size": 31, "crop_size": {"height": 40, "width": 21}}),
    (CLIPImageProcessorPil, {"do_resize": False, "crop_size": 501, "do_rescale": False}),
    (LlavaImageProcessorPil, {"size": {"shortest_edge": 64}, "crop_size": 56}),
    (BitImageProcessorPil, {"size": {"shortest_edge": 75}, "crop_size": {"height": 56, "width": 56}}),
    (SiglipImageProcessorPil, {"size": {"height": 38, "width": 38}, "resample": 4}),
    (SiglipImageProcessorPil, {"size": {"height": 500, "width": 700}, "image_mean": [0.1, 0.2, 0.3], "resample": 5}),
]

MULTIPLES = [
    (ViltImageProcessorPil, {"size": {"shortest_edge": 64}, "size_divisor": 16, "do_pad": False}),
    (ViltImageProcessorPil, {"size": {"shortest_edge": 40}, "size_divisor": 7, "resample": 2, "do_pad": False}),
]
"""Sides are cut down to multiples, and pictures stay of unequal size."""


def stream_of(processor, **more):
    """The stream that the processor's file describes."""
    resize, mean, std = prepared(processor.to_dict(), "ViT")
    data = {
        "tokenizer": {"kind": "patch", "patch": 1, "channels": 3, "mean": mean, "std": std},
        "resize": resize or None,
    }
    return decode(find("modality", "image").Config, {**data, **more}).build()


def like_theirs(processor, pictures) -> None:
    modality = stream_of(processor)
    shown = [Pillow.fromarray(picture) if isinstance(picture, np.ndarray) else picture for picture in pictures]
    raw = processor(shown, do_rescale=False, do_normalize=False)["pixel_values"]
    whole = processor(shown)["pixel_values"]
    for picture, bytes_, numbers in zip(pictures, raw, whole, strict=True):
        ours = modality.prepared(modality.check(picture))
        assert ours.dtype == np.uint8
        np.testing.assert_array_equal(ours, np.moveaxis(bytes_, 0, -1))
        values = modality.tokens(picture).values
        np.testing.assert_allclose(
            values, np.moveaxis(numbers, 0, -1).reshape(values.shape), rtol=0, atol=1e-5 * max(1, abs(numbers).max())
        )


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_real_pictures(kind, settings):
    """As wide as high, narrow, wide, and smaller than what is asked for."""
    pictures = [CHINA, FLOWER[:, 100:300], FLOWER[200:260], CHINA[:31, :29], FLOWER[7:8, :90], CHINA[:, 5:6]]
    like_theirs(kind(**settings), [np.ascontiguousarray(picture) for picture in pictures])


@pytest.mark.parametrize(("kind", "settings"), MULTIPLES)
def test_pictures_of_unequal_size(kind, settings):
    """As long as theirs leaves a side; of a very narrow one ours keeps one multiple."""
    pictures = [CHINA, FLOWER[:, 100:300], FLOWER[200:420], CHINA[:31, :29], CHINA[:, :99], CHINA[:40, :41]]
    like_theirs(kind(**settings), [np.ascontiguousarray(picture) for picture in pictures])
    modality = stream_of(kind(**settings))
    assert min(modality.prepared(FLOWER[7:8, :90]).shape[:2]) == settings["size_divisor"]


@pytest.mark.parametrize(
    "kind", [CLIPImageProcessorPil, LlavaImageProcessorPil, BitImageProcessorPil, SiglipImageProcessorPil]
)
def test_pictures_of_other_modes(kind):
    """Grey, transparent, palettes: three colours come of all of them."""
    colours, ramp = Pillow.fromarray(CHINA), np.linspace(0, 255, CHINA[..., 0].size).reshape(CHINA.shape[:2])
    clear = colours.copy()
    clear.putalpha(Pillow.fromarray(ramp.astype(np.uint8)))
    palette = colours.convert("P", palette=Pillow.Palette.ADAPTIVE, colors=17)
    seen_through = palette.copy()
    seen_through.info["transparency"] = 3
    pictures = [
        colours,
        colours.convert("L"),
        clear,
        colours.convert("LA"),
        palette,
        seen_through,
        colours.convert("1"),
    ]
    like_theirs(kind(), [*pictures, colours.convert("CMYK")])


def test_pictures_of_floats_are_not_rounded():
    """Against Pillow's own pictures of floats, channel by channel; two channels and five work as well."""
    draw = np.random.default_rng(0)
    for channels in (1, 2, 3, 5):
        picture = draw.random((30, 20, channels), dtype=np.float32)
        tokenizer = {"kind": "patch", "patch": 3, "channels": channels}
        resize = {"size": [12, 15], "filter": "bilinear"}
        modality = decode(find("modality", "image").Config, {"tokenizer": tokenizer, "resize": resize}).build()
        ours = modality.prepared(modality.check(picture))
        for channel in range(channels):
            theirs = Pillow.fromarray(picture[..., channel]).resize((15, 12), Pillow.Resampling.BILINEAR)
            np.testing.assert_array_equal(ours[..., channel], np.asarray(theirs))
        assert len(modality.tokens(picture).values) == 20
    bytes_ = draw.integers(0, 256, (30, 20, 2), dtype=np.uint8)
    modality = decode(find("modality", "image").Config, {"resize": {"size": [12, 15]}}).build()
    theirs = Pillow.fromarray(bytes_[..., 1]).resize((15, 12), Pillow.Resampling.BICUBIC)
    np.testing.assert_array_equal(modality.prepared(bytes_)[..., 1], np.asarray(theirs))


@pytest.mark.parametrize(("kind", "settings"), [*CASES, *MULTIPLES])
def test_what_is_written_does_the_same(kind, settings, tmp_path):
    """A file that we write makes transformers' processor do what ours does, and reads as what it was written from."""
    processor = kind(**settings)
    resize, mean, std = prepared(processor.to_dict(), "ViT")
    record = written(encode(stream_of(processor).config), "ViT")
    assert prepared(record, "ViT")[0] == resize
    again = type(processor)(**{name: value for name, value in record.items() if name != "image_processor_type"})
    for picture in (CHINA, np.ascontiguousarray(FLOWER[:45, :70])):
        ours, theirs = (made([picture])["pixel_values"][0] for made in (again, processor))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(1, abs(theirs).max()))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"image_processor_type": "DonutImageProcessor"}, "there is no processor 'DonutImageProcessor' here"),
        ({"size": {"longest_edge": 9}}, "a size is a height and a width, or shortest_edge"),
        ({"size": {"height": 0, "width": 3}}, "pictures of 0 by 3 pixels have no patch of 16"),
        ({"do_center_crop": True, "crop_size": {"shortest_edge": 3}}, "crop_size"),
        ({"do_pad": True}, "do_pad"),
        ({"resample": 9}, "resample"),
        ({"image_std": [1, 0, 1]}, "image_std"),
        ({"image_mean": [0.5, 0.5]}, "mean names 2 channels"),
        ({"rescale_factor": 0}, "rescale_factor"),
        ({"size": {"height": 5, "width": 400}}, "have no patch"),
        ({"size": {"shortest_edge": 10**6}}, "shorter"),
    ],
)
def test_bad_preprocessors_are_told_in_one_line(settings, told):
    with pytest.raises(ConfigError, match=told) as caught:
        find("family", "vit").read({}, settings).model().streams["image"].build()
    assert "\n" not in str(caught.value)


def test_bad_pictures_are_told_in_one_line():
    modality = stream_of(CLIPImageProcessorPil())
    for picture, told in (
        (np.zeros((1, 10**6, 3), np.uint8), "would become 224 by 224000000: crop it first"),
        (np.zeros((9, 9, 2), np.uint8), "has 2 channels, but the patch tokenizer takes 3"),
        (np.zeros((9, 9, 7), np.uint8), "has 7 channels"),
        (np.zeros((9, 0, 3), np.uint8), "shape"),
        (np.zeros((9, 9, 3), np.int64), "not int64"),
        (np.full((9, 9, 3), 255.0), "floats is in 0...1"),
        (np.full((9, 9, 3), np.nan), "floats is in 0...1"),
    ):
        with pytest.raises(ValueError, match=told) as caught:
            modality.tokens(picture)
        assert "\n" not in str(caught.value)
    grey = stream_of(ViTImageProcessorPil())
    with pytest.raises(ValueError, match="has 1 channels, but the patch tokenizer takes 3"):
        grey.tokens(np.zeros((9, 9), np.uint8))
    for resize, told in (
        ({"shorter": 3, "size": [3, 3]}, "not both"),
        ({"size": [3, 10**6]}, "a height and a width of 1 to"),
        ({"crop": [0, 4]}, "a height and a width of 1 to"),
        ({"filter": "cubic"}, "filter"),
    ):
        with pytest.raises(ConfigError, match=told):
            decode(find("modality", "image").Config, {"resize": resize})


@pytest.mark.parametrize(
    ("name", "processor"),
    [
        ("vit", ViTImageProcessorPil(size={"height": 20, "width": 8})),
        ("clip", CLIPImageProcessorPil(size=31, crop_size={"height": 16, "width": 24})),
        ("ijepa", ViTImageProcessorPil(size={"height": 20, "width": 8})),
        ("siglip", SiglipImageProcessorPil(size={"height": 15, "width": 22})),
        ("dinov2", BitImageProcessorPil(size={"shortest_edge": 33}, crop_size={"height": 29, "width": 32})),
        ("dinov2_with_registers", BitImageProcessorPil(size=8, crop_size={"height": 8, "width": 8})),
    ],
)
def test_conversions_are_verified_on_pictures_of_the_processors_size(name, processor, tmp_path):
    """On a grid that is not the table's, which the reference stretches as well (some if they are asked to)."""
    module = importlib.import_module(f"test_{name.removesuffix('_with_registers')}")
    reference = module.TINY[name]() if hasattr(module, "TINY") else module.tiny()
    folder = published(reference, tmp_path / "theirs", processor)
    model = sf.load_published(folder)
    family = origin.family_of(model.published["config"], model.published["preprocessor"])
    for trunk, away in verify(folder, model, family).items():
        assert max(away) <= 1e-5, (trunk, away)
