"""ViT against transformers: streams, class logits, loss, gradients, pixels to patches, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from twins import comes_back, layers, patches, same, same_gradients, stirred, twin

from sevenfold.assembly.pool import pool
from sevenfold.core.types import Stream

SHAPES = [
    {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 64},
    {"hidden_size": 15, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 13, "patch_size": 3},
    {"hidden_size": 10, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 40, "num_channels": 1},
]


def made(shape: dict, dtype: torch.dtype = torch.float32, kind: type = ViTForImageClassification):
    config = ViTConfig(**{"image_size": 12, "patch_size": 4, "num_labels": 5, **shape})
    return stirred(kind(config)).to(dtype)


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
    family, model, _ = twin(reference)
    again = comes_back(reference, family, model)
    for name, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    pixels = pictures(reference)
    assert torch.equal(again(pixels).logits, reference(pixels).logits)


def test_without_a_classifier():
    """ViTModel's pooler is left behind."""
    reference = made(SHAPES[0], kind=ViTModel)
    _, model, _ = twin(reference)
    assert not model.heads
    pixels = pictures(reference)
    same(model({"image": patches(pixels, 4)})["enc"].x, reference(pixels).last_hidden_state)


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
