"""GPT-2 against transformers: streams, logits, loss, gradients, attention weights, drawing, and the way back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel
from twins import family_of, files, layers, ragged, same, same_gradients, stirred, twin, way_back, words

from sevenfold.assembly.model import Model
from sevenfold.core.part import find
from sevenfold.core.types import Hidden, Mask

SHAPES = [
    {"n_embd": 32, "n_head": 4, "n_layer": 3, "vocab_size": 300, "n_positions": 24},
    {"n_embd": 15, "n_head": 3, "n_layer": 2, "vocab_size": 271, "n_positions": 17, "n_inner": 23},
    {"n_embd": 7, "n_head": 1, "n_layer": 1, "vocab_size": 260, "n_positions": 9, "layer_norm_epsilon": 1e-3},
]


def made(shape: dict, dtype: torch.dtype = torch.float32, **settings) -> GPT2LMHeadModel:
    config = GPT2Config(**shape, bos_token_id=257, eos_token_id=258, pad_token_id=256, **settings)
    return stirred(GPT2LMHeadModel(config)).to(dtype)


def inputs(shape: dict, padded: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    torch.manual_seed(1)
    n = shape["n_positions"] - 1
    ids = torch.randint(256, (3, n))
    return ids, ragged(ids, [n, 1, n // 2]) if padded else None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_streams_and_logits(shape, padded, dtype):
    reference = made(shape, dtype)
    _, model, _ = twin(reference)
    ids, valid = inputs(shape, padded)
    mask = None if valid is None else valid.long()
    theirs = reference(ids, attention_mask=mask, output_hidden_states=True)
    done, seen = layers(model.trunks["lm"], lambda: model({"text": words(ids, valid)})["lm"])
    assert len(seen) == len(theirs.hidden_states)
    for ours, their in zip([*seen[:-1], done.x], theirs.hidden_states):  # their last one is after the norm
        same(ours, their, valid)
    same(model.head("text", done.x), theirs.logits, valid)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients(shape, padded, dtype):
    reference = made(shape, dtype)
    family, model, objective = twin(reference, "next_token")
    ids, valid = inputs(shape, padded)
    labels = ids if valid is None else ids.masked_fill(~valid, -100)
    theirs = reference(ids, attention_mask=None if valid is None else valid.long(), labels=labels)
    ours = objective({"text": words(ids, valid)})
    # Theirs comes in float32 whatever the logits are in, so in float64 it is taken again from their logits.
    loss = F.cross_entropy(theirs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    same(ours.mean.float(), theirs.loss)
    same(ours.mean, loss)
    loss.backward()
    ours.mean.backward()
    same_gradients(reference, family, model)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_way_back(shape):
    reference = made(shape)
    again = way_back(reference)
    ids, _ = inputs(shape, False)
    assert torch.equal(again(ids).logits, reference(ids).logits)


def test_attention_weights():
    reference = made(SHAPES[0])
    reference.set_attn_implementation("eager")
    _, model, _ = twin(reference)
    ids, _ = inputs(SHAPES[0], False)
    theirs = reference(ids, output_attentions=True).attentions
    _, seen = layers(model.trunks["lm"], lambda: model({"text": words(ids)}))
    for block, x, their in zip(model.trunks["lm"].blocks, seen, theirs):
        same(block.mixer.weights(Hidden(block.norms[0](x)), Mask(causal=True)), their)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("length", [1, 12])
def test_greedy_drawing(ends, length):
    """Prompts of unequal length in one batch, to the same ids: as a batch and one by one, until the end token."""
    reference = made({**SHAPES[0], "vocab_size": 260, "n_positions": 64})
    with torch.no_grad():
        reference.transformer.wte.weight[258] *= 2.5  # or the end token would hardly ever be the likeliest
    family = family_of(reference)
    _, model, _ = twin(reference)
    config = family.model()
    text = config.streams["text"].replace(tokenizer=find("tokenization", "bytes").Config(), ends=ends)
    config = config.replace(streams={"text": text})
    model = Model(config, {"text": text.build()}).eval()
    family.load(files(reference)[1], model)
    prompts = ["a", "Once upon a time", "seven rooms", "é", "xyz", "to be or not", "0", "the end"]
    model.modalities["text"].raw = lambda values, coords: values.tolist()  # ids, not text
    ours = model.generate(prompts, temperature=0, length=length)
    rows = [([257] if ends else []) + list(prompt.encode()) for prompt in prompts]
    longest = max(map(len, rows))
    ids = torch.tensor([[256] * (longest - len(row)) + row for row in rows])
    settings = {"do_sample": False, "max_new_tokens": length, "suppress_tokens": [256, 257, 259]}
    theirs = reference.generate(ids, attention_mask=(ids != 256).long(), **settings)
    stopped = 0
    for row, prompt, our, their in zip(rows, prompts, ours, theirs.tolist()):
        alone = model.generate([prompt], temperature=0, length=length)[0]
        ours_new, theirs_new, alone_new = (
            until_end(ids) for ids in (our[len(row) :], their[longest:], alone[len(row) :])
        )
        assert our[: len(row)] == row
        assert ours_new == theirs_new == alone_new
        stopped += ours_new[-1] == 258
    assert length == 1 or 0 < stopped < len(prompts)


def until_end(ids: list[int]) -> list[int]:
    return ids[: ids.index(258) + 1] if 258 in ids else ids
