"""BERT against transformers: streams, logits of hidden words, loss, gradients, and the way back."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, BertModel
from twins import (
    built,
    comes_back,
    family_of,
    files,
    layers,
    ragged,
    same,
    same_gradients,
    stirred,
    twin,
    way_back,
    words,
)

SHAPES = [
    {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 64, "vocab_size": 300},
    {"hidden_size": 21, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 13, "vocab_size": 271},
    {"hidden_size": 9, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 36, "vocab_size": 261},
]
LENGTH = 19


def made(shape: dict, dtype: torch.dtype = torch.float32, kind: type = BertForMaskedLM):
    return stirred(kind(BertConfig(**shape, max_position_embeddings=LENGTH + 1))).to(dtype)


def tiny() -> BertForMaskedLM:
    return made(SHAPES[0])


def inputs(padded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(256, (3, LENGTH))
    return ids, ragged(ids, [LENGTH, 2, LENGTH // 2] if padded else [LENGTH] * 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_streams_and_logits(shape, padded, dtype):
    reference = made(shape, dtype)
    _, model, _ = twin(reference)
    ids, valid = inputs(padded)
    theirs = reference(ids, attention_mask=valid.long(), output_hidden_states=True)
    done, seen = layers(model.trunks["enc"], lambda: model({"text": words(ids, valid if padded else None)})["enc"])
    assert len(seen) == len(theirs.hidden_states)
    for ours, their in zip(seen, theirs.hidden_states):
        same(ours, their, valid)
    same(done.x, theirs.hidden_states[-1], valid)
    same(model.head("text", done.x), theirs.logits, valid)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients(shape, padded, dtype):
    reference = made(shape, dtype)
    family, model, objective = twin(reference, "masked_token")
    ids, valid = inputs(padded)
    chosen = (torch.rand(ids.shape) < 0.3) & valid
    corrupted = torch.where(chosen, 259, ids)
    theirs = reference(corrupted, attention_mask=valid.long(), labels=ids.masked_fill(~chosen, -100))
    ours = objective({"text": words(ids, valid if padded else None)}, {"chosen": chosen, "seen": corrupted})
    same(ours.mean, theirs.loss)
    theirs.loss.backward()
    ours.mean.backward()
    reference.bert.embeddings.token_type_embeddings.weight.grad[1].zero_()  # segment B, which nothing uses
    same_gradients(reference, family, model)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_way_back(shape):
    reference = made(shape)
    again = way_back(reference)
    ids, _ = inputs(False)
    assert torch.equal(again(ids).logits, reference(ids).logits)


def test_without_a_head_and_with_other_heads():
    """BertModel has no head for words; BertForPreTraining has more than ours, which is carried along."""
    bare = made(SHAPES[0], kind=BertModel)
    family, model, _ = twin(bare)
    assert not model.heads
    ids, _ = inputs(False)
    same(model({"text": words(ids)})["enc"].x, bare(ids).last_hidden_state)
    whole = made(SHAPES[0], kind=BertForPreTraining)
    _, model, _ = twin(whole)
    same(model.head("text", model({"text": words(ids)})["enc"].x), whole(ids).prediction_logits)


@pytest.mark.parametrize(
    "head",
    [
        "ForSequenceClassification",
        "ForTokenClassification",
        "ForQuestionAnswering",
        "ForMultipleChoice",
        "ForNextSentencePrediction",
        "ForPreTraining",
        "Model",
    ],
)
def test_other_heads_are_carried(head):
    reference = made(SHAPES[1], kind=getattr(transformers, f"Bert{head}"))
    family, model, _ = twin(reference)
    assert bool(model.heads) == (head == "ForPreTraining") and len(model.luggage) > 2
    ids, valid = inputs(True)
    base = getattr(reference, "bert", reference)
    same(model({"text": words(ids, valid)})["enc"].x, base(ids, attention_mask=valid.long()).last_hidden_state, valid)
    again = comes_back(reference, family, model)
    for name, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_old_spellings():
    """The first published files say gamma and beta, and hold a table of places."""
    reference = made(SHAPES[0])
    family, state = family_of(reference), files(reference)[1]
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in state.items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(LENGTH + 1)[None]
    family.load(old, built(family.model()))
    assert family.from_published(old).keys() == family.from_published(state).keys()
