"""ViT against transformers: streams, class logits, loss, gradients, pixels to patches, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from sklearn.datasets import load_sample_image
from transformers import AutoImageProcessor, ViTConfig, ViTForImageClassification, ViTModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from twins import built, comes_back, files, layers, patches, published, same, same_gradients, stirred, twin, way_back

import sevenfold as sf
from sevenfold.assembly.pool import pool
from sevenfold.core.part import find
from sevenfold.core.types import Stream

SHAPES = [
    {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 64},
    {"hidden_size": 15, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 13, "patch_size": 3},
    {"hidden_size": 10, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 40, "num_channels": 1},
    {"hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 9, "qkv_bias": False},
    {"hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 9, "hidden_act": "silu"},
]


def made(shape: dict, dtype: torch.dtype = torch.float32, kind: type = ViTForImageClassification):
    config = ViTConfig(**{"image_size": 12, "patch_size": 4, "num_labels": 5, **shape})
    return stirred(kind(config)).to(dtype)


def tiny() -> ViTForImageClassification:
    return made(SHAPES[0])


def pictures(reference) -> torch.Tensor:
    torch.manual_seed(1)
    config = reference.config
    side = config.image_size
    return torch.randn(3, config.num_channels, side, side, dtype=reference.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_streams_and_logits(shape, dtype):
    reference = made(shape, dtype)
    _, model, _ = twin(reference)
    pixels = pictures(reference)
    theirs = reference(pixels, output_hidden_states=True)
    stream = patches(pixels, reference.config.patch_size)
    done, seen = layers(model.trunks["enc"], lambda: model({"image": stream})["enc"])
    assert len(seen) == len(theirs.hidden_states)
    for ours, their in zip(seen, theirs.hidden_states):
        same(ours, their)
    same(done.x, reference.vit(pixels).last_hidden_state)
    same(model.head("label", pool(done, "class")), theirs.logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients(shape, dtype):
    reference = made(shape, dtype)
    family, model, objective = twin(reference, "supervised", target="label", pool="class")
    pixels, labels = pictures(reference), torch.tensor([4, 0, 2])
    theirs = reference(pixels, labels=labels)
    stream = patches(pixels, reference.config.patch_size)
    ours = objective({"image": stream, "label": Stream(labels[:, None], torch.zeros(3, 1, 0))})
    same(ours.mean, theirs.loss)
    theirs.loss.backward()
    ours.mean.backward()
    same_gradients(reference, family, model)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_way_back(shape):
    reference = made(shape)
    again = way_back(reference)
    pixels = pictures(reference)
    assert torch.equal(again(pixels).logits, reference(pixels).logits)


def test_without_a_classifier():
    """ViTModel's pooler is left behind."""
    reference = made(SHAPES[0], kind=ViTModel)
    _, model, _ = twin(reference)
    assert not model.heads
    pixels = pictures(reference)
    same(model({"image": patches(pixels, 4)})["enc"].x, reference(pixels).last_hidden_state)


def test_a_bare_encoder_comes_back():
    """With its pooler, which may have another width and activation."""
    reference = made({**SHAPES[0], "pooler_output_size": 7, "pooler_act": "relu"}, kind=ViTModel)
    family, model, _ = twin(reference)
    again = comes_back(reference, family, model)
    pixels = pictures(reference)
    assert torch.equal(again(pixels).pooler_output, reference(pixels).pooler_output)
    assert again(pixels).pooler_output.shape == (3, 7)


@pytest.mark.parametrize("size", [(20, 20), (8, 8), (4, 24)])
def test_tables_are_stretched_as_theirs(size):
    reference = made(SHAPES[0])
    height, width = size
    family = find("family", "vit").read(files(reference)[0], {"size": {"height": height, "width": width}})
    model = built(family.model())
    family.load(files(reference)[1], model)
    pixels = torch.randn(3, 3, height, width)
    theirs = reference(pixels, interpolate_pos_encoding=True).logits
    same(model.head("label", pool(model({"image": patches(pixels, 4)})["enc"], "class")), theirs)


def test_a_folder_with_its_processor(tmp_path):
    """Photographs through transformers' processor and model, and through ours; another size is written as such."""
    reference = made(SHAPES[0])
    processor = ViTImageProcessorPil(size={"height": 12, "width": 12}, resample=3, image_std=[0.2, 0.3, 0.4])
    model = sf.load_published(published(reference, tmp_path / "theirs", processor))
    photographs = [load_sample_image("china.jpg"), np.ascontiguousarray(load_sample_image("flower.jpg")[:300, 100:300])]
    theirs = reference.vit(processor(photographs, return_tensors="pt")["pixel_values"]).last_hidden_state.detach()
    np.testing.assert_allclose(np.stack(model.embed(photographs, pool="none")), theirs[:, 1:], rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.embed(photographs, pool="class"), theirs[:, 0], rtol=0, atol=1e-5)
    sf.publish(model, tmp_path / "ours")
    assert ViTImageProcessorPil.from_pretrained(tmp_path / "ours").to_dict() == processor.to_dict()


def test_a_folder_without_a_processor(tmp_path):
    """Pictures get the size of its table, in the way of its family, and the published folder says so."""
    reference = made(SHAPES[0])
    model = sf.load_published(published(reference, tmp_path / "theirs"))
    photographs = [load_sample_image("china.jpg")]
    processor = ViTImageProcessorPil(size={"height": 12, "width": 12})
    theirs = reference.vit(processor(photographs, return_tensors="pt")["pixel_values"]).last_hidden_state.detach()
    np.testing.assert_allclose(np.stack(model.embed(photographs, pool="none")), theirs[:, 1:], rtol=0, atol=1e-5)
    sf.publish(model, tmp_path / "ours")
    again = AutoImageProcessor.from_pretrained(tmp_path / "ours")
    ours, wanted = (made(photographs)["pixel_values"][0] for made in (again, processor))
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-6)


def test_a_run_that_began_from_a_folder_keeps_its_processor(tmp_path):
    """Trained on photographs of two sizes, loaded, and published: pictures are prepared in the same way throughout."""
    processor = ViTImageProcessorPil(size={"height": 12, "width": 12}, resample=3)
    folder = published(made({**SHAPES[0], "num_labels": 2}), tmp_path / "theirs", processor)
    photographs = [load_sample_image("china.jpg"), load_sample_image("flower.jpg")[:200, :300]]
    for index in range(12):
        inside = tmp_path / "data" / f"LABEL_{index % 2}"
        inside.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(photographs[index % 2][index:]).save(inside / f"{index}.png")
    data = {"kind": "image_folder", "path": str(tmp_path / "data")}
    objective = {"kind": "supervised", "pool": "class"}
    train = {"steps": 1, "batch": 4, "precision": "fp32"}
    recipe = {"start": str(folder), "data": data, "objective": objective, "train": train}
    run = sf.train(recipe, out=tmp_path / "run", say=lambda _: None, bar=False)
    vectors = run.model.embed(photographs)
    np.testing.assert_array_equal(sf.load(tmp_path / "run").embed(photographs), vectors)
    sf.convert(tmp_path / "run", tmp_path / "back", say=lambda _: None)
    again = AutoImageProcessor.from_pretrained(tmp_path / "back")
    assert again.to_dict() == processor.to_dict()
    theirs = ViTForImageClassification.from_pretrained(tmp_path / "back").vit(
        again(photographs, return_tensors="pt")["pixel_values"]
    )
    np.testing.assert_allclose(vectors, theirs.last_hidden_state[:, 1:].mean(1).detach(), rtol=0, atol=1e-5)


def test_from_pixels():
    """A picture of bytes through our tokenizer, and through their processor."""
    reference = made(SHAPES[0])
    _, model, _ = twin(reference)
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    processor = ViTImageProcessorPil(do_resize=False)
    pixels = processor(list(images), return_tensors="pt")["pixel_values"]
    batch = model.tokenize([{"image": image} for image in images])
    same(batch["image"].values, patches(pixels, 4).values)
    assert torch.equal(batch["image"].coords, patches(pixels, 4).coords)
    same(model.head("label", pool(model(batch)["enc"], "class")), reference(pixels).logits)
