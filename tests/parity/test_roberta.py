"""RoBERTa, XLM-RoBERTa and CamemBERT against transformers: streams, logits, loss, gradients, heads, and the way back."""

from __future__ import annotations

import pytest
import torch
import transformers
from encoders import loss_and_gradients, streams_and_logits, way_back
from transformers import AutoConfig, PreTrainedModel, RobertaForMaskedLM
from twins import comes_back, family_of, files, ragged, same, stirred, twin, words

from sevenfold.core.errors import ConfigError

CLASSES = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}
SHAPES = [
    {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 64, "vocab_size": 300},
    {
        "hidden_size": 21,
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "intermediate_size": 13,
        "vocab_size": 271,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    },
    {
        "hidden_size": 9,
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "intermediate_size": 36,
        "vocab_size": 261,
        "pad_token_id": 4,
    },
]
LENGTH = 19
CASES = [(kind, shape) for kind in CLASSES for shape in range(len(SHAPES))]


def made(kind: str, shape: int, dtype: torch.dtype = torch.float32, head: str = "ForMaskedLM") -> PreTrainedModel:
    settings = {"pad_token_id": 1, **SHAPES[shape]}
    config = AutoConfig.for_model(kind, **settings, max_position_embeddings=LENGTH + settings["pad_token_id"] + 2)
    return stirred(getattr(transformers, CLASSES[kind] + head)(config)).to(dtype)


TINY = {kind: (lambda kind=kind: made(kind, 0)) for kind in CLASSES}


def inputs(reference: PreTrainedModel, padded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids, with the padding id where there is none of ours: by it the reference counts positions."""
    torch.manual_seed(1)
    pad = reference.config.pad_token_id
    valid = ragged(torch.zeros(3, LENGTH), [LENGTH, 2, LENGTH // 2] if padded else [LENGTH] * 3)
    return torch.randint(5, 256, (3, LENGTH)).masked_fill(~valid, pad), valid


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_streams_and_logits(kind, shape, padded, dtype):
    reference = made(kind, shape, dtype)
    streams_and_logits(reference, *inputs(reference, padded))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_loss_and_gradients(kind, shape, padded, dtype):
    reference = made(kind, shape, dtype)
    ids, valid = inputs(reference, padded)
    chosen = (torch.rand(ids.shape) < 0.3) & valid
    loss_and_gradients(reference, ids, valid, chosen, 259)


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_the_way_back(kind, shape):
    reference = made(kind, shape)
    ids, _ = inputs(reference, False)
    way_back(reference, lambda model: model(ids).logits)


@pytest.mark.parametrize(
    "head",
    ["Model", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice"],
)
@pytest.mark.parametrize("kind", CLASSES)
def test_other_heads_are_carried(kind, head):
    reference = made(kind, 1, head=head)
    family, model, _ = twin(reference)
    assert not model.heads and len(model.luggage) >= 2
    ids, valid = inputs(reference, True)
    base = getattr(reference, "roberta", reference)
    same(model({"text": words(ids, valid)})["enc"].x, base(ids, attention_mask=valid.long()).last_hidden_state, valid)
    again = comes_back(reference, family, model)
    for name, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_old_files_and_copies():
    """Files hold a table of places and the head twice; a head that is not the embedding is refused."""
    reference = made("roberta", 0)
    family, state = family_of(reference), files(reference)[1]
    more = {
        **state,
        "roberta.embeddings.position_ids": torch.arange(LENGTH + 3)[None],
        "lm_head.decoder.weight": state["roberta.embeddings.word_embeddings.weight"],
        "lm_head.decoder.bias": state["lm_head.bias"],
    }
    assert family.from_published(more).keys() == family.from_published(state).keys()
    own = family.from_published(state)
    assert own["trunks.enc.position.tables"].shape == (1, LENGTH + 1, 32) and own["luggage.positions"].shape == (2, 32)


def test_no_place_for_a_word():
    with pytest.raises(
        ConfigError, match="max_position_embeddings: 5 leaves no place for a word behind the 5 of padding"
    ):
        family_of(RobertaForMaskedLM(AutoConfig.for_model("roberta", **SHAPES[2], max_position_embeddings=5)))
