"""ViT-MAE against transformers: encoder, decoder, loss with either target, gradients, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from twins import comes_back, family_of, files, layers, patches, published, same, same_gradients, stirred, twin

import sevenfold as sf
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.core.types import take

SHAPES = [
    {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 64},
    {
        "hidden_size": 12,
        "num_attention_heads": 3,
        "num_hidden_layers": 1,
        "intermediate_size": 13,
        "decoder_hidden_size": 20,
        "decoder_num_attention_heads": 1,
        "decoder_intermediate_size": 7,
        "patch_size": 3,
        "num_channels": 1,
        "mask_ratio": 0.6,
    },
    {"hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 9, "qkv_bias": False},
]
SMALL = {
    "image_size": 12,
    "patch_size": 4,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}


def made(shape: dict, dtype: torch.dtype = torch.float32, **settings) -> ViTMAEForPreTraining:
    reference = ViTMAEForPreTraining(ViTMAEConfig(**{**SMALL, **shape, **settings}))
    embeddings = reference.vit.embeddings.patch_embeddings
    embeddings.projection._is_hf_initialized = False  # or a model from a config keeps positions of zero
    reference.vit.embeddings.initialize_weights()
    reference.decoder.initialize_weights(embeddings.num_patches)
    stirred(reference)
    with torch.no_grad():
        reference.decoder.mask_token.normal_()
    return reference.to(dtype)


def tiny() -> ViTMAEForPreTraining:
    return made(SHAPES[0])


def inputs(reference) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    config = reference.config
    side = config.image_size
    pixels = torch.randn(3, config.num_channels, side, side, dtype=reference.dtype)
    return pixels, torch.rand(3, (side // config.patch_size) ** 2)


def ours_of(reference):
    config = reference.config
    return twin(reference, "mae", ratio=config.mask_ratio, patch_norm=config.norm_pix_loss)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_encoder_and_decoder(shape, dtype):
    reference = made(shape, dtype)
    _, model, objective = ours_of(reference)
    pixels, noise = inputs(reference)
    theirs = reference(pixels, noise=noise, output_hidden_states=True)
    stream = patches(pixels, reference.config.patch_size)
    visible, hidden = objective.split(stream, noise)
    asked = torch.zeros_like(theirs.mask).scatter(1, hidden, 1)
    assert torch.equal(asked, theirs.mask)
    done, seen = layers(model.trunks["enc"], lambda: model.trunks["enc"]({"image": stream.take(visible)}))
    for ours, their in zip(seen, theirs.hidden_states):
        same(ours, their)
    same(done.x, reference.vit(pixels, noise=noise).last_hidden_state)
    same(objective.rebuild(stream, visible, hidden), take(theirs.logits, hidden))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("patch_norm", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients(shape, patch_norm, dtype):
    reference = made(shape, dtype, norm_pix_loss=patch_norm)
    family, model, objective = ours_of(reference)
    pixels, noise = inputs(reference)
    theirs = reference(pixels, noise=noise).loss
    stream = patches(pixels, reference.config.patch_size)
    ours = objective({"image": stream}, {"score": noise}).mean
    same(ours, theirs)
    theirs.backward()
    ours.backward()
    same_gradients(reference, family, model, objective)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_way_back(shape):
    reference = made(shape)
    family, model, objective = ours_of(reference)
    again = comes_back(reference, family, model, objective)
    for name, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    pixels, noise = inputs(reference)
    assert torch.equal(again(pixels, noise=noise).loss, reference(pixels, noise=noise).loss)


def test_positions_are_theirs():
    """On a grid whose sides are not a power of two, to the last bit; other positions are refused."""
    reference = made(SHAPES[0], image_size=28)
    family, state = family_of(reference), files(reference)[1]
    for name in ("vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"):
        made_by_us = family.to_published({**family.from_published(state)})[name]
        assert torch.equal(made_by_us, state[name])
    state["decoder.decoder_pos_embed"] = state["decoder.decoder_pos_embed"].flip(1)
    with pytest.raises(CheckpointError, match="decoder_pos_embed"):
        family.from_published(state)


def test_a_folder_with_its_processor(tmp_path):
    """Photographs, nothing hidden, through transformers' processor and model, and through ours."""
    reference = made(SHAPES[0])
    processor = ViTImageProcessorPil(size={"height": 12, "width": 12}, image_mean=[0.485, 0.456, 0.406])
    model = sf.load_published(published(reference, tmp_path / "theirs", processor))
    photographs = [load_sample_image("china.jpg"), np.ascontiguousarray(load_sample_image("flower.jpg")[:300, 100:300])]
    reference.config.mask_ratio = 0.0
    pixels = processor(photographs, return_tensors="pt")["pixel_values"]
    theirs = reference.vit(pixels, noise=torch.arange(9.0).expand(2, -1)).last_hidden_state.detach()
    ours = model.embed(photographs, pool="none", trunk="enc")
    np.testing.assert_allclose(np.stack(ours), theirs[:, 1:], rtol=0, atol=1e-5)
    sf.publish(model, tmp_path / "ours")
    assert ViTImageProcessorPil.from_pretrained(tmp_path / "ours").to_dict() == processor.to_dict()


def test_equal_widths_are_refused():
    with pytest.raises(ConfigError, match="equal widths"):
        family_of(made({**SHAPES[0], "hidden_size": 16})).model()
