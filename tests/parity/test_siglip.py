"""SigLIP against transformers: both towers, the probe that pools, vectors, the sigmoid loss and its gradients, a folder with
its processor, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import SiglipConfig, SiglipModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from twins import (
    built,
    comes_back,
    files,
    layers,
    patches,
    published,
    same,
    same_gradients,
    stirred,
    twin,
    way_back,
    words,
)

import sevenfold as sf
from sevenfold.assembly.pool import pool
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import find

SHAPES = [
    ({"hidden_size": 32, "num_attention_heads": 4}, {"hidden_size": 32, "num_attention_heads": 4}),
    (
        {"hidden_size": 9, "num_attention_heads": 1, "projection_size": 15},
        {"hidden_size": 15, "num_attention_heads": 3},
    ),
    (
        {"hidden_size": 8, "num_attention_heads": 2, "hidden_act": "gelu", "num_hidden_layers": 1},
        {"hidden_size": 8, "num_attention_heads": 4, "num_channels": 1, "image_size": 14, "intermediate_size": 13},
    ),
]
PAD = 2
TEXT = {"vocab_size": 301, "num_hidden_layers": 2, "intermediate_size": 29, "max_position_embeddings": 11}
PICTURE = {"image_size": 12, "patch_size": 4, "num_hidden_layers": 3, "intermediate_size": 31}


def made(shape: tuple, dtype: torch.dtype = torch.float32, **picture) -> SiglipModel:
    text = {**TEXT, "pad_token_id": PAD, "bos_token_id": 0, "eos_token_id": 1, **shape[0]}
    config = SiglipConfig(text_config=text, vision_config={**PICTURE, **shape[1], **picture})
    reference = stirred(SiglipModel(config)).to(dtype)
    with torch.no_grad():
        reference.logit_scale.fill_(1.3)
        reference.logit_bias.fill_(-2.1)
    return reference


def tiny() -> SiglipModel:
    return made(SHAPES[0])


def inputs(reference) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures, and captions filled up to one length."""
    torch.manual_seed(1)
    config = reference.config.vision_config
    pixels = torch.randn(4, config.num_channels, config.image_size, config.image_size, dtype=reference.dtype)
    ids = torch.randint(3, 301, (4, 11))
    ids[torch.arange(11)[None] >= torch.tensor([11, 2, 7, 4])[:, None]] = PAD
    return pixels, ids


def whole(pixels: torch.Tensor) -> torch.Tensor:
    """Without what is beyond the last whole patch of 4 by 4."""
    side = pixels.shape[-1] // 4 * 4
    return pixels[..., :side, :side]


def vectors(model, batch) -> tuple[torch.Tensor, torch.Tensor]:
    done = model(batch)
    return model.head("map", pool(done["map"], "mean")), model.head("t", pool(done["t"], "last"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_towers_and_vectors(shape, dtype):
    reference = made(shape, dtype)
    _, model, _ = twin(reference)
    pixels, ids = inputs(reference)
    batch = {"image": patches(whole(pixels), 4), "text": words(ids)}
    for tower, theirs in (
        ("v", reference.vision_model(pixels, output_hidden_states=True)),
        ("t", reference.text_model(ids, output_hidden_states=True)),
    ):
        done, seen = layers(model.trunks[tower], lambda tower=tower: model(batch)[tower])
        assert len(seen) == len(theirs.hidden_states)
        for ours, their in zip(seen, theirs.hidden_states):
            same(ours, their)
        same(done.x, theirs.last_hidden_state)
    u, w = vectors(model, batch)
    same(u, reference.get_image_features(pixels).pooler_output)
    same(w, reference.get_text_features(ids).pooler_output)
    theirs = reference(ids, pixels)
    same(F.normalize(u, dim=-1), theirs.image_embeds)
    same(F.normalize(w, dim=-1), theirs.text_embeds)
    scale, bias = model.luggage["objective.scale"], model.luggage["objective.bias"]
    assert scale.shape == bias.shape == ()
    same(scale.exp() * F.normalize(u, dim=-1) @ F.normalize(w, dim=-1).T + bias, theirs.logits_per_image)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients(shape, dtype):
    """Through the objective of its family; those of scale and bias too, and both are written back."""
    reference = made(shape, dtype)
    kind, settings = find("family", "siglip").objective["kind"], dict(find("family", "siglip").objective)
    assert settings.pop("kind") == kind == "sigmoid"
    family, model, objective = twin(reference, kind, **settings)
    assert not model.luggage
    assert objective.scale.item() == pytest.approx(1.3) and objective.bias.item() == pytest.approx(-2.1)
    pixels, ids = inputs(reference)
    theirs = reference(ids, pixels, return_loss=True)
    ours = objective({"image": patches(whole(pixels), 4), "text": words(ids)})
    same(ours.mean, theirs.loss)
    comes_back(reference, family, model, objective)
    theirs.loss.backward()
    ours.mean.backward()
    same_gradients(reference, family, model, objective)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_way_back(shape):
    reference = made(shape)
    again = way_back(reference)
    pixels, ids = inputs(reference)
    assert torch.equal(again(ids, pixels).logits_per_image, reference(ids, pixels).logits_per_image)


def test_going_on_by_another_contrast():
    """Its towers can learn by infonce, which holds the scale; the bias is kept, and both are written back."""
    reference = made(SHAPES[0])
    settings = {key: value for key, value in find("family", "siglip").objective.items() if key != "kind"}
    family, model, objective = twin(reference, "infonce", **settings)
    assert objective.scale.item() == pytest.approx(1.3) and model.luggage.keys() == {"objective.bias"}
    pixels, ids = inputs(reference)
    loss = objective({"image": patches(pixels, 4), "text": words(ids)})
    theirs = reference(ids, pixels)
    same(loss.outputs["u"], theirs.image_embeds)
    logits = (theirs.logits_per_image - reference.logit_bias).detach()
    target = torch.arange(4)
    same(loss.mean, (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2)
    loss.mean.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())
    comes_back(reference, family, model, objective)


@pytest.mark.parametrize("size", [(20, 20), (4, 24)])
def test_tables_are_stretched_as_theirs(size):
    reference = made(SHAPES[0])
    height, width = size
    family = find("family", "siglip").read(files(reference)[0], {"size": {"height": height, "width": width}})
    model = built(family.model())
    family.load(files(reference)[1], model)
    pixels = torch.randn(2, 3, height, width)
    theirs = reference.get_image_features(pixels, interpolate_pos_encoding=True).pooler_output
    done = model({"image": patches(pixels, 4)})
    same(model.head("map", pool(done["map"], "mean")), theirs)


def test_a_folder_with_its_processor_and_tokenizer(tmp_path):
    """Photographs and captions through transformers' processor and model, and through ours, and through what ours writes."""
    reference = made(SHAPES[0], image_size=14)
    processor = SiglipImageProcessorPil(size={"height": 14, "width": 14})
    folder = published(reference, tmp_path / "theirs", processor)
    letters = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "<pad>": 2, **{chr(32 + i): 3 + i for i in range(95)}}, []))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    letters.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    letters.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>", "pad_token": "<pad>"}')
    model = sf.load_published(folder)
    photographs = [load_sample_image("china.jpg"), np.ascontiguousarray(load_sample_image("flower.jpg")[:300, 100:300])]
    captions = ["a temple", "a flower that is too long a caption"]
    ids = [[3 + ord(letter) - 32 for letter in caption][:10] + [1] for caption in captions]
    ids = torch.tensor([(row + [PAD] * 11)[:11] for row in ids])
    theirs = reference(ids, processor(photographs, return_tensors="pt")["pixel_values"])
    batch = model.tokenize([{"image": picture, "text": text} for picture, text in zip(photographs, captions)])
    assert torch.equal(batch["text"].values, ids)
    u, w = vectors(model, batch)
    same(F.normalize(u, dim=-1), theirs.image_embeds)
    same(F.normalize(w, dim=-1), theirs.text_embeds)
    found = model.embed([{"image": picture} for picture in photographs], trunk="map")
    np.testing.assert_allclose(found, theirs.vision_model_output.pooler_output.detach(), rtol=0, atol=1e-5)
    sf.publish(model, tmp_path / "ours")
    assert SiglipImageProcessorPil.from_pretrained(tmp_path / "ours").to_dict() == processor.to_dict()


def test_a_model_that_learned_otherwise_has_the_first_scale_and_bias():
    reference = made(SHAPES[0])
    family, model, _ = twin(reference)
    state = family.to_published(model.state_dict())
    assert state["logit_scale"].exp().item() == pytest.approx(10) and state["logit_bias"].item() == -10


def test_towers_that_do_not_meet_are_refused():
    family = find("family", "siglip").read({"text_config": {"projection_size": 12}})
    with pytest.raises(ConfigError, match="captions become vectors of 12, pictures of 768"):
        family.model()
