"""Apertus and xIELU against transformers: streams, logits, loss, gradients, drawing, and the way back."""

from __future__ import annotations

import pytest
import torch
from decoders import greedy, loss_and_gradients, streams_and_logits, texts, way_back
from transformers import ApertusConfig, ApertusForCausalLM, ApertusModel
from transformers.activations import XIELUActivation
from twins import GRADIENT, comes_back, family_of, files, precisely, rounded, same, stirred, twin, words

from sevenfold.core.errors import CheckpointError
from sevenfold.core.part import find

SHAPES = [
    {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 3,
        "intermediate_size": 48,
        "vocab_size": 300,
    },
    {
        "hidden_size": 24,
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "intermediate_size": 17,
        "vocab_size": 271,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    },
    {
        "hidden_size": 20,
        "num_attention_heads": 5,
        "num_key_value_heads": 1,
        "num_hidden_layers": 1,
        "intermediate_size": 33,
        "vocab_size": 263,
        "rms_norm_eps": 1e-3,
    },
]
LENGTH = 19


def made(shape: dict, dtype: torch.dtype = torch.float32, kind: type = ApertusForCausalLM, **more):
    with precisely(dtype):
        config = ApertusConfig(**{**shape, **more}, bos_token_id=257, eos_token_id=258, pad_token_id=256)
        return rounded(stirred(kind(config)).to(dtype))


def tiny() -> ApertusForCausalLM:
    return made(SHAPES[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_streams_and_logits(shape, padded, dtype):
    streams_and_logits(made(shape, dtype), LENGTH, padded)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients(shape, padded, dtype):
    loss_and_gradients(made(shape, dtype), LENGTH, padded)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_way_back(shape):
    way_back(made(shape))


def test_without_a_head():
    bare = made(SHAPES[1], kind=ApertusModel)
    family, model, _ = twin(bare)
    assert not model.heads
    ids, _ = texts(LENGTH, False)
    same(model({"text": words(ids)})["lm"].x, bare(ids).last_hidden_state)
    comes_back(bare, family, model)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("length", [1, 12])
def test_greedy_drawing(length, ends):
    reference = made(SHAPES[0], vocab_size=260)
    with torch.no_grad():
        reference.lm_head.weight[258] *= 3.5  # or the end token would hardly ever be the likeliest
    greedy(reference, length, ends)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_xielu(dtype):
    """The function and its gradients, near 0 and far from it, at the first slopes and at others."""
    theirs, ours = XIELUActivation(dtype=dtype), find("nonlinearity", "xielu").Config().build(4).to(dtype)
    for name in ("alpha_p", "alpha_n"):
        same(getattr(ours, name), getattr(theirs, name), tolerance=1e-7)
    special = torch.tensor([0.0, 1e-9, -1e-9, -0.9e-6, -1.1e-6, 1e-3, -1e-3, 30.0, -30.0], dtype=dtype)
    for slopes in ((0.3, -0.7), (-2.0, 1.5), (1.0, 0.0)):
        x = torch.cat([special if dtype == torch.float64 else special[:-2], torch.randn(100, dtype=dtype)])
        x.requires_grad_()
        with torch.no_grad():
            for part in (theirs, ours):
                part.alpha_p.fill_(slopes[0])
                part.alpha_n.fill_(slopes[1])
        found, wanted = ours.activate(x), theirs(x)
        same(found, wanted)
        weight = torch.randn_like(x)
        ours_gradients, their_gradients = (
            torch.autograd.grad((value * weight).sum(), [x, part.alpha_p, part.alpha_n])
            for value, part in ((found, ours), (wanted, theirs))
        )
        for mine, other in zip(ours_gradients, their_gradients):
            same(mine, other, tolerance=GRADIENT[dtype])


def test_other_fixed_numbers_are_refused():
    """xIELU's beta and eps stand in the files, and are ours only if they are these."""
    reference = made(SHAPES[2])
    family, state = family_of(reference), files(reference)[1]
    state["model.layers.0.mlp.act_fn.beta"] = torch.tensor(0.25)
    with pytest.raises(CheckpointError, match="act_fn.beta'?: holds other numbers"):
        family.from_published(state)
    state["model.layers.0.mlp.act_fn.beta"] = torch.tensor(0.5, dtype=torch.bfloat16)
    state["model.layers.0.mlp.act_fn.eps"] = torch.tensor(-1e-6, dtype=torch.bfloat16)
    family.from_published(state)
