"""Mamba against transformers: streams, logits, loss, gradients, drawing, and the way back."""

from __future__ import annotations

import pytest
import torch
from decoders import greedy, loss_and_gradients, streams_and_logits, texts, way_back
from transformers import MambaConfig, MambaForCausalLM, MambaModel
from twins import built, comes_back, family_of, files, precisely, same, stirred, twin, words

from sevenfold.exchange.verify import verify

SHAPES = [
    {"hidden_size": 32, "num_hidden_layers": 3, "vocab_size": 300, "state_size": 16},
    {
        "hidden_size": 15,
        "num_hidden_layers": 2,
        "vocab_size": 271,
        "state_size": 3,
        "expand": 3,
        "conv_kernel": 2,
        "use_bias": True,
        "use_conv_bias": False,
        "time_step_rank": 4,
        "tie_word_embeddings": False,
    },
    {
        "hidden_size": 7,
        "num_hidden_layers": 1,
        "vocab_size": 263,
        "state_size": 5,
        "expand": 1,
        "use_bias": True,
        "layer_norm_epsilon": 1e-3,
        "residual_in_fp32": False,
    },
]
LENGTH = 19


def made(shape: dict, dtype: torch.dtype = torch.float32, kind: type = MambaForCausalLM, **more):
    with precisely(dtype):
        config = MambaConfig(**{**shape, **more}, bos_token_id=257, eos_token_id=258, pad_token_id=256)
        reference = stirred(kind(config))
        with torch.no_grad():  # or streams and logits are near 20, of which float32 cannot tell 1e-5
            reference.get_input_embeddings().weight /= 2
            for layer in reference.base_model.layers:
                layer.mixer.out_proj.weight /= 4
        return reference.to(dtype)


def tiny() -> MambaForCausalLM:
    return made(SHAPES[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_streams_and_logits(shape, padded, dtype):
    """Their states begin after the first block."""
    streams_and_logits(made(shape, dtype), LENGTH, padded, first=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients(shape, padded, dtype):
    loss_and_gradients(made(shape, dtype), LENGTH, padded)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_way_back(shape):
    way_back(made(shape))


def test_without_a_head():
    bare = made(SHAPES[1], kind=MambaModel)
    family, model, _ = twin(bare)
    assert not model.heads
    ids, _ = texts(LENGTH, False)
    same(model({"text": words(ids)})["lm"].x, bare(ids).last_hidden_state)
    comes_back(bare, family, model)


def test_old_spelling():
    """The first published files call the table `embedding`."""
    reference = made(SHAPES[0])
    family, state = family_of(reference), files(reference)[1]
    state["backbone.embedding.weight"] = state.pop("backbone.embeddings.weight")
    family.load(state, built(family.model()))


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("length", [1, 12])
@pytest.mark.parametrize("shape", SHAPES[:2])
def test_greedy_drawing(shape, length, ends):
    """Without `use_bias`, which the reference adds to the padding in front of shorter prompts, where its convolution sees it."""
    reference = made(shape, vocab_size=260, use_bias=False)
    with torch.no_grad():
        reference.lm_head.weight[258] *= 2.5  # or the end token would hardly ever be the likeliest
    greedy(reference, length, ends)


@pytest.mark.parametrize("shape", SHAPES)
def test_verified_block_by_block(shape, tmp_path):
    """Also where the reference's states begin after the first block."""
    reference = made(shape)
    reference.save_pretrained(tmp_path)
    family, model, _ = twin(reference)
    (away,) = verify(tmp_path, model, family).values()
    assert len(away) == shape["num_hidden_layers"] + 1
    assert max(away) <= 1e-5
