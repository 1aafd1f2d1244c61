"""DINOv2, without and with registers, against transformers: streams, class logits, loss, gradients, tables stretched to other
pictures, folders with their processor, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    Dinov2WithRegistersModel,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from twins import comes_back, family_of, files, layers, patches, published, same, same_gradients, stirred, twin

import sevenfold as sf
from sevenfold.assembly.model import Model
from sevenfold.assembly.pool import pool
from sevenfold.core.part import Config, decode, find
from sevenfold.core.types import Stream
from sevenfold.family import state_of
from sevenfold.objective import Objective

PLAIN = (Dinov2Config, Dinov2Model, Dinov2ForImageClassification)
REGISTERED = (Dinov2WithRegistersConfig, Dinov2WithRegistersModel, Dinov2WithRegistersForImageClassification)
SHAPES = [
    (PLAIN, {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3}),
    (PLAIN, {"hidden_size": 15, "num_attention_heads": 3, "use_swiglu_ffn": True, "patch_size": 3, "qkv_bias": False}),
    (PLAIN, {"hidden_size": 10, "num_attention_heads": 2, "num_channels": 1, "use_mask_token": False, "mlp_ratio": 3}),
    (REGISTERED, {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3}),
    (REGISTERED, {"hidden_size": 9, "num_attention_heads": 1, "num_register_tokens": 1, "patch_size": 3}),
    (REGISTERED, {"hidden_size": 20, "num_attention_heads": 2, "use_swiglu_ffn": True, "hidden_act": "relu"}),
]


def made(shape: tuple, dtype: torch.dtype = torch.float32, headed: bool = True, **more):
    (config, bare, classifier), settings = shape
    told = {"image_size": 12, "patch_size": 4, "num_labels": 5, "num_hidden_layers": 2, **settings, **more}
    reference = stirred((classifier if headed else bare)(config(**told))).to(dtype)
    for name, parameter in reference.named_parameters():  # no picture has hidden patches here
        if name.endswith("mask_token"):
            parameter.data.normal_()
            parameter.requires_grad_(False)
    return reference


def tiny_dinov2() -> Dinov2ForImageClassification:
    return made(SHAPES[0])


def tiny_dinov2_with_registers() -> Dinov2WithRegistersForImageClassification:
    return made(SHAPES[3])


TINY = {"dinov2": tiny_dinov2, "dinov2_with_registers": tiny_dinov2_with_registers}


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
    same(done.x, reference.base_model(pixels).last_hidden_state)
    same(model.head("label", pool(done, "class_mean")), theirs.logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients(shape, dtype):
    reference = made(shape, dtype)
    family, model, objective = twin(reference, target="label", **find("family", "dinov2").objective)
    pixels, labels = pictures(reference), torch.tensor([4, 0, 2])
    theirs = reference(pixels, labels=labels)
    stream = patches(pixels, reference.config.patch_size)
    ours = objective({"image": stream, "label": Stream(labels[:, None], torch.zeros(3, 1, 0))})
    same(ours.mean, theirs.loss)
    theirs.loss.backward()
    ours.mean.backward()
    same_gradients(reference, family, model)


@pytest.mark.parametrize("headed", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_way_back(shape, headed):
    reference = made(shape, headed=headed)
    family, model, _ = twin(reference)
    assert set(model.heads) == ({"label"} if headed else set())
    again = comes_back(reference, family, model)
    for name, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    pixels = pictures(reference)
    assert torch.equal(again(pixels)[0], reference(pixels)[0])
    theirs = files(reference)[1]
    ours = family.to_published(family.from_published(theirs))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("size", [(12, 12), (20, 20), (8, 8), (4, 24), (28, 16)])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3]])
def test_tables_are_stretched_as_theirs(shape, size):
    """To larger pictures, smaller ones and other proportions; gradients of the table as well. On its own grid it is exact."""
    reference = made(shape, headed=False)
    height, width = size
    crop = {"do_resize": False, "do_center_crop": True, "crop_size": {"height": height, "width": width}}
    family = find("family", "dinov2").read(files(reference)[0], crop)
    model = twin(reference)[1] if size == (12, 12) else _built(family, reference)
    assert model.trunks["enc"].position.stretched().shape == (height * width // 16, 32)
    pixels = pictures(reference, height, width)
    theirs = reference(pixels, output_hidden_states=True)
    done, seen = layers(model.trunks["enc"], lambda: model({"image": patches(pixels, 4)})["enc"])
    for ours, their in zip(seen, theirs.hidden_states):
        same(ours, their)
    if size == (12, 12):
        assert torch.equal(model.trunks["enc"].position.stretched(), reference.embeddings.position_embeddings[0, 1:])
    theirs.last_hidden_state.square().mean().backward()
    done.x.square().mean().backward()
    same_gradients(reference, family, model)


def _built(family, reference):
    from twins import built

    model = built(family.model())
    family.load(files(reference)[1], model)
    return model


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3]])
def test_a_folder_with_its_processor(shape, tmp_path):
    """Photographs through transformers' processor and model, and through ours, and through what ours writes."""
    reference = made(shape, headed=False)
    processor = BitImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})
    model = sf.load_published(published(reference, tmp_path / "theirs", processor))
    photographs = [load_sample_image("china.jpg"), np.ascontiguousarray(load_sample_image("flower.jpg")[:300, 100:300])]
    theirs = reference(processor(photographs, return_tensors="pt")["pixel_values"])
    cut = 1 + reference.config.to_dict().get("num_register_tokens", 0)
    patches_ = np.stack(model.embed(photographs, pool="none"))
    np.testing.assert_allclose(patches_, theirs.last_hidden_state[:, cut:].detach(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.embed(photographs, pool="class"), theirs.pooler_output.detach(), rtol=0, atol=1e-5)
    sf.publish(model, tmp_path / "ours")
    again = BitImageProcessorPil.from_pretrained(tmp_path / "ours")
    assert again.to_dict() == processor.to_dict()
    back = type(reference).from_pretrained(tmp_path / "ours")
    assert torch.equal(
        back(again(photographs, return_tensors="pt")["pixel_values"]).last_hidden_state, theirs.last_hidden_state
    )


def test_the_rounding_of_the_gated_width():
    """The giant's inner width, 4,096, and others: two thirds of four times the width, rounded up to eight."""
    for width, inner in ((1536, 4096), (384, 1024), (10, 32), (24, 64)):
        config = find("family", "dinov2").read({"hidden_size": width, "use_swiglu_ffn": True}).config
        assert config.intermediate_size == inner


def test_the_mask_token_is_that_of_self_distillation():
    """A run that begins from published weights takes it over, and its own is published; without one it is 0."""
    reference = made(SHAPES[3], headed=False)
    family = family_of(reference)
    state = family.from_published(files(reference)[1])
    model = Model(family.model(), {name: config.build() for name, config in family.model().streams.items()})
    head = {"prototypes": 4, "hidden": 4, "width": 4}
    settings = {"kind": "ibot", "head": head, "views": [{"kind": "affine"}]}
    objective = decode(Asked, {"objective": settings}).objective.build(model)
    family.place(state, model)
    theirs = reference.embeddings.mask_token
    assert torch.equal(model.luggage["objective.mask_token"], theirs[0])  # where `start` looks for it
    objective.mask_token.data.copy_(theirs[0] + 1)
    own = state_of(model, objective)
    assert torch.equal(family.to_published(own)["embeddings.mask_token"], theirs + 1)
    del own["objective.mask_token"]
    assert torch.equal(family.to_published(own)["embeddings.mask_token"], torch.zeros(1, 32))


class Asked(Config):
    objective: Objective.Config
