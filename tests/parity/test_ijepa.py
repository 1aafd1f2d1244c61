"""I-JEPA against transformers: streams, class logits, loss, gradients, stretched tables, a folder with its processor, and the
way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from transformers import IJepaConfig, IJepaForImageClassification, IJepaModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from twins import built, comes_back, files, layers, patches, published, same, same_gradients, stirred, twin

import sevenfold as sf
from sevenfold.assembly.pool import pool
from sevenfold.core.part import find
from sevenfold.core.types import Stream

SHAPES = [
    {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 64},
    {"hidden_size": 15, "num_attention_heads": 3, "intermediate_size": 13, "patch_size": 3, "qkv_bias": False},
    {"hidden_size": 10, "num_attention_heads": 2, "num_channels": 1, "hidden_act": "gelu_new", "num_labels": 2},
]


def made(shape: dict, dtype: torch.dtype = torch.float32, kind: type = IJepaForImageClassification):
    told = {
        "image_size": 12,
        "patch_size": 4,
        "num_labels": 5,
        "num_hidden_layers": 2,
        "intermediate_size": 20,
        **shape,
    }
    return stirred(kind(IJepaConfig(**told))).to(dtype)


def tiny() -> IJepaForImageClassification:
    return made(SHAPES[0])


def pictures(reference, height: int = 12, width: int = 12) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(3, reference.config.num_channels, height, width, dtype=reference.dtype)


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
    same(done.x, reference.ijepa(pixels).last_hidden_state)
    same(model.head("label", pool(done, "mean")), theirs.logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients(shape, dtype):
    reference = made(shape, dtype)
    family, model, objective = twin(reference, target="label", **find("family", "ijepa").objective)
    pixels, labels = pictures(reference), torch.tensor([1, 0, 1])
    theirs = reference(pixels, labels=labels)
    stream = patches(pixels, reference.config.patch_size)
    ours = objective({"image": stream, "label": Stream(labels[:, None], torch.zeros(3, 1, 0))})
    same(ours.mean, theirs.loss)
    theirs.loss.backward()
    ours.mean.backward()
    same_gradients(reference, family, model)


@pytest.mark.parametrize("kind", [IJepaForImageClassification, IJepaModel])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_way_back(shape, kind):
    reference = made(shape, kind=kind)
    family, model, _ = twin(reference)
    again = comes_back(reference, family, model)
    for name, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    pixels = pictures(reference)
    assert torch.equal(again(pixels)[0], reference(pixels)[0])
    assert family.to_published(family.from_published(files(reference)[1])).keys() == files(reference)[1].keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(20, 20), (8, 8), (4, 24)])
def test_tables_are_stretched_as_theirs(size, dtype):
    reference = made(SHAPES[0], dtype, IJepaModel)
    height, width = size
    processor = {"size": {"height": height, "width": width}}
    family = find("family", "ijepa").read(files(reference)[0], processor)
    model = built(family.model()).to(dtype)
    family.load(files(reference)[1], model)
    pixels = pictures(reference, height, width)
    theirs = reference(pixels, interpolate_pos_encoding=True).last_hidden_state
    done = model({"image": patches(pixels, 4)})["enc"]
    same(done.x, theirs)
    theirs.square().mean().backward()
    done.x.square().mean().backward()
    same_gradients(reference, family, model)


def test_a_folder_with_its_processor(tmp_path):
    """Photographs through transformers' processor and model, and through ours, and through what ours writes."""
    reference = made(SHAPES[0], kind=IJepaModel)
    processor = ViTImageProcessorPil(size={"height": 12, "width": 12}, image_mean=[0.4, 0.5, 0.6])
    model = sf.load_published(published(reference, tmp_path / "theirs", processor))
    photographs = [load_sample_image("china.jpg"), np.ascontiguousarray(load_sample_image("flower.jpg")[:300, 100:300])]
    theirs = reference(processor(photographs, return_tensors="pt")["pixel_values"]).last_hidden_state.detach()
    np.testing.assert_allclose(np.stack(model.embed(photographs, pool="none")), theirs, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.embed(photographs), theirs.mean(1), rtol=0, atol=1e-5)
    sf.publish(model, tmp_path / "ours")
    assert ViTImageProcessorPil.from_pretrained(tmp_path / "ours").to_dict() == processor.to_dict()


def test_hidden_patches_leave_the_others_in_their_places():
    """What a joint-embedding objective does: some patches alone, each with its own row of the table."""
    reference = made(SHAPES[0], kind=IJepaModel)
    _, model, _ = twin(reference)
    pixels = pictures(reference)
    seen = [0, 4, 5]
    whole, part = [], patches(pixels, 4).each(lambda tensor: tensor[:, seen])
    hook = reference.layers[0].register_forward_pre_hook(lambda _, given: whole.append(given[0]))
    reference(pixels)
    hook.remove()
    _, blocks = layers(model.trunks["enc"], lambda: model({"image": part})["enc"])
    same(blocks[0], whole[0][:, seen])
