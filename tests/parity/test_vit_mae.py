"""ViT-MAE against transformers: encoder, decoder, loss with either target, gradients, and the way back."""

from __future__ import annotations

import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from twins import comes_back, family_of, files, layers, patches, same, same_gradients, stirred, twin

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


def test_equal_widths_are_refused():
    with pytest.raises(ConfigError, match="equal widths"):
        family_of(made({**SHAPES[0], "hidden_size": 16})).model()
