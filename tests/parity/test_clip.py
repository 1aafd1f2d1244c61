"""CLIP against transformers: both towers, vectors, contrastive loss, gradients, pixels to patches, and the way back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from transformers import AutoImageProcessor, CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from twins import (
    built,
    comes_back,
    files,
    layers,
    patches,
    published,
    ragged,
    same,
    same_gradients,
    stirred,
    twin,
    words,
)

import sevenfold as sf
from sevenfold.assembly.pool import pool
from sevenfold.core.part import find

EOS, PAD = 258, 256
SHAPES = [
    ({"hidden_size": 32, "num_attention_heads": 4}, {"hidden_size": 24, "num_attention_heads": 2}, 16),
    ({"hidden_size": 15, "num_attention_heads": 3}, {"hidden_size": 9, "num_attention_heads": 1, "patch_size": 3}, 7),
    (
        {"hidden_size": 8, "num_attention_heads": 2, "hidden_act": "gelu", "num_hidden_layers": 1},
        {"hidden_size": 16, "num_attention_heads": 4, "num_channels": 1},
        8,
    ),
]
TEXT = {"vocab_size": 271, "num_hidden_layers": 2, "intermediate_size": 29, "max_position_embeddings": 14}
PICTURE = {"image_size": 12, "patch_size": 4, "num_hidden_layers": 3, "intermediate_size": 31}


def made(shape: tuple, dtype: torch.dtype = torch.float32) -> CLIPModel:
    text, picture, width = shape
    special = {"bos_token_id": 257, "eos_token_id": EOS, "pad_token_id": PAD}
    towers = {"text_config": {**TEXT, **special, **text}, "vision_config": {**PICTURE, **picture}}
    return stirred(CLIPModel(CLIPConfig(**towers, projection_dim=width))).to(dtype)


def tiny() -> CLIPModel:
    return made(
        (
            {"hidden_size": 16, "num_attention_heads": 2, "vocab_size": 310},
            {"hidden_size": 16, "num_attention_heads": 2},
            8,
        )
    )


def inputs(reference) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures, captions that end in the end token at different places, and where captions are."""
    torch.manual_seed(1)
    config = reference.config.vision_config
    pixels = torch.randn(4, config.num_channels, config.image_size, config.image_size, dtype=reference.dtype)
    lengths = [13, 2, 7, 14]
    ids = torch.randint(256, (4, 14))
    valid = ragged(ids, lengths)
    ids[torch.arange(4), torch.tensor(lengths) - 1] = EOS
    return pixels, ids.masked_fill(~valid, PAD), valid


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_towers_and_vectors(shape, dtype):
    reference = made(shape, dtype)
    _, model, _ = twin(reference, "infonce")
    pixels, ids, valid = inputs(reference)
    theirs = reference.vision_model(pixels, output_hidden_states=True)
    stream = patches(pixels, reference.config.vision_config.patch_size)
    done, seen = layers(model.trunks["v"], lambda: model({"image": stream})["v"])
    assert len(seen) == len(theirs.hidden_states)
    for ours, their in zip(seen, theirs.hidden_states):
        same(ours, their)
    same(pool(done, "class"), theirs.pooler_output)
    u = model.head("v", pool(done, "class"))
    same(u, reference.get_image_features(pixels).pooler_output)

    theirs = reference.text_model(ids, attention_mask=valid.long(), output_hidden_states=True)
    done, seen = layers(model.trunks["t"], lambda: model({"text": words(ids, valid)})["t"])
    assert len(seen) == len(theirs.hidden_states)
    for ours, their in zip(seen, theirs.hidden_states):
        same(ours, their, valid)
    same(done.x, theirs.last_hidden_state, valid)
    same(pool(done, "last"), theirs.pooler_output)
    w = model.head("t", pool(done, "last"))
    same(w, reference.get_text_features(ids, attention_mask=valid.long()).pooler_output)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients(shape, dtype):
    reference = made(shape, dtype)
    family, model, objective = twin(reference, "infonce", trunks=["v", "t"], multi_positive=False)
    pixels, ids, valid = inputs(reference)
    theirs = reference(ids, pixels, attention_mask=valid.long(), return_loss=True)
    stream = patches(pixels, reference.config.vision_config.patch_size)
    ours = objective({"image": stream, "text": words(ids, valid)})
    same(ours.outputs["u"], theirs.image_embeds)
    same(ours.outputs["v"], theirs.text_embeds)
    same(ours.mean, theirs.loss)
    theirs.loss.backward()
    ours.mean.backward()
    same_gradients(reference, family, model, objective)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_way_back(shape):
    reference = made(shape)
    family, model, objective = twin(reference, "infonce")
    again = comes_back(reference, family, model, objective)
    for name, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    pixels, ids, valid = inputs(reference)
    ours, theirs = (m(ids, pixels, attention_mask=valid.long()).logits_per_image for m in (again, reference))
    assert torch.equal(ours, theirs)


def test_old_folders_pool_at_the_largest_id():
    """`eos_token_id: 2` means the place of the largest id; captions may be padded by the end token itself."""
    reference = made(SHAPES[0])
    reference.text_model.eos_token_id = reference.config.text_config.eos_token_id = 2
    _, model, _ = twin(reference)
    pixels, ids, valid = inputs(reference)
    ids = ids.clamp(max=EOS)
    theirs = reference(ids.masked_fill(~valid, EOS), pixels)
    same(
        torch.nn.functional.normalize(model.head("t", pool(model({"text": words(ids, valid)})["t"], "last")), dim=-1),
        theirs.text_embeds,
    )


def test_long_captions_are_closed():
    """What is cut to the length of the table still ends in its end token, where captions are read out."""
    reference = made(SHAPES[0])
    _, model, _ = twin(reference)
    ids = model.tokenize([{"text": "a caption that goes on and on"}, {"text": "short"}])["text"]
    wanted = [257, *b"a caption th", EOS]
    assert ids.values[0].tolist() == wanted and ids.valid.sum(1).tolist() == [14, 7]


@pytest.mark.parametrize("size", [(20, 20), (4, 24)])
def test_tables_are_stretched_as_theirs(size):
    reference = made(SHAPES[0])
    height, width = size
    crop = {"do_resize": False, "do_center_crop": True, "crop_size": {"height": height, "width": width}}
    family = find("family", "clip").read(files(reference)[0], crop)
    model = built(family.model())
    family.load(files(reference)[1], model)
    pixels = torch.randn(3, 3, height, width)
    theirs = reference.get_image_features(pixels, interpolate_pos_encoding=True).pooler_output
    same(model.head("v", pool(model({"image": patches(pixels, 4)})["v"], "class")), theirs)


def test_a_folder_with_its_processor(tmp_path):
    """Photographs through transformers' processor and model, and through ours, and through what ours writes."""
    reference = made(SHAPES[0])
    processor = CLIPImageProcessorPil(size={"shortest_edge": 15}, crop_size={"height": 12, "width": 12})
    model = sf.load_published(published(reference, tmp_path / "theirs", processor))
    photographs = [load_sample_image("china.jpg"), np.ascontiguousarray(load_sample_image("flower.jpg")[:300, 100:300])]
    theirs = reference.vision_model(processor(photographs, return_tensors="pt")["pixel_values"])
    raws = [{"image": picture} for picture in photographs]
    ours = model.embed(raws, pool="class", trunk="v")
    np.testing.assert_allclose(ours, theirs.pooler_output.detach(), rtol=0, atol=1e-5)
    sf.publish(model, tmp_path / "ours")
    assert CLIPImageProcessorPil.from_pretrained(tmp_path / "ours").to_dict() == processor.to_dict()


def test_a_processor_inside_of_another_file(tmp_path):
    """Newer folders keep the picture's processor in processor_config.json."""
    processor = CLIPImageProcessorPil(size={"shortest_edge": 15}, crop_size={"height": 12, "width": 12})
    folder = published(made(SHAPES[0]), tmp_path / "theirs")
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": processor.to_dict()}))
    model = sf.load_published(folder)
    assert model.config.streams["image"].resize.shorter == 15
    sf.publish(model, tmp_path / "ours")
    assert AutoImageProcessor.from_pretrained(tmp_path / "ours").to_dict() == processor.to_dict()


def test_from_pixels_and_words():
    """A picture of bytes with a mean and deviation per channel, and a caption with its end token."""
    reference = made(SHAPES[0])
    _, model, _ = twin(reference, "infonce")
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    pixels = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)(list(images), return_tensors="pt")
    captions = ["a cat", "two dogs"]
    batch = model.tokenize([{"image": image, "text": text} for image, text in zip(images, captions)])
    same(batch["image"].values, patches(pixels["pixel_values"], 4).values)
    ids = torch.tensor([[257, *text.encode(), EOS, *[PAD] * (8 - len(text))] for text in captions])
    theirs = reference(ids, pixels["pixel_values"], attention_mask=(ids != PAD).long())
    done = model(batch)
    for tower, how, vectors in (("v", "class", theirs.image_embeds), ("t", "last", theirs.text_embeds)):
        same(torch.nn.functional.normalize(model.head(tower, pool(done[tower], how)), dim=-1), vectors)
    back = model.modalities["image"].raw(batch["image"].values[0].numpy())
    np.testing.assert_allclose(back * 255, images[0], atol=1e-3)
