"""ESM-2 and ESM-1b against transformers: streams, logits, loss, gradients, masks, stored frequencies, heads, and the way back."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from encoders import loss_and_gradients, streams_and_logits, way_back
from safetensors.torch import save_file
from transformers import EsmConfig, EsmForMaskedLM, PreTrainedModel
from twins import comes_back, family_of, files, precisely, ragged, rounded, same, stirred, twin, words

from sevenfold.exchange.load import load_published

SHAPES = [
    {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "intermediate_size": 64,
        "token_dropout": True,
        "position_embedding_type": "rotary",
    },
    {
        "hidden_size": 18,
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "intermediate_size": 13,
        "emb_layer_norm_before": True,
        "position_embedding_type": "rotary",
        "rope_theta": 50.0,
        "layer_norm_eps": 1e-3,
    },
    {
        "hidden_size": 9,
        "num_attention_heads": 1,
        "num_hidden_layers": 2,
        "intermediate_size": 36,
        "token_dropout": True,
        "emb_layer_norm_before": True,
        "position_embedding_type": "absolute",
    },
    {
        "hidden_size": 15,
        "num_attention_heads": 5,
        "num_hidden_layers": 1,
        "intermediate_size": 7,
        "token_dropout": True,
    },
]
LENGTH, MASK = 19, 32


def made(shape: dict, dtype: torch.dtype = torch.float32, head: str = "ForMaskedLM") -> PreTrainedModel:
    special = {"vocab_size": 33, "mask_token_id": MASK, "pad_token_id": 1}
    with precisely(dtype):
        config = EsmConfig(**shape, **special, max_position_embeddings=LENGTH + 3)
        return rounded(stirred(getattr(transformers, f"Esm{head}")(config)).to(dtype))


def tiny() -> EsmForMaskedLM:
    return made(SHAPES[0])


def inputs(padded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Residues between their ends, some hidden, other numbers of them in each row."""
    torch.manual_seed(1)
    valid = ragged(torch.zeros(3, LENGTH), [LENGTH, 4, LENGTH // 2] if padded else [LENGTH] * 3)
    ids = torch.randint(4, 29, (3, LENGTH))
    ids[:, 0] = 0
    ids[0, [2, 5, 6]], ids[1, 2], ids[2, [1, 2, 3, 4, 5]] = MASK, MASK, MASK
    return ids.masked_fill(~valid, 1), valid


def aside(reference: PreTrainedModel) -> None:
    """The regression to contacts is of no loss."""
    reference.esm.contact_head.requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_streams_and_logits(shape, padded, dtype):
    streams_and_logits(made(shape, dtype), *inputs(padded), normed=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients(shape, padded, dtype):
    ids, valid = inputs(padded)
    ids = ids.masked_fill(ids == MASK, 7)
    chosen = (torch.rand(ids.shape) < 0.3) & valid
    loss_and_gradients(made(shape, dtype), ids, valid, chosen, MASK, aside)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_way_back(shape):
    ids, valid = inputs(True)
    way_back(made(shape), lambda model: model(ids, attention_mask=valid.long()).logits)


@pytest.mark.parametrize("shape", SHAPES)
def test_contacts_after_the_way_back(shape):
    """What is carried along still does its work in transformers."""
    reference = made(shape)
    reference.set_attn_implementation("eager")
    family, model, _ = twin(reference)
    assert {
        "luggage.esm.contact_head.regression.weight",
        "luggage.esm.contact_head.regression.bias",
    } <= model.luggage.keys()
    again = comes_back(reference, family, model)
    again.set_attn_implementation("eager")
    ids, valid = inputs(False)
    assert torch.equal(again.predict_contacts(ids, valid.long()), reference.predict_contacts(ids, valid.long()))


@pytest.mark.parametrize("head", ["Model", "ForSequenceClassification", "ForTokenClassification"])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_other_heads_are_carried(head, shape):
    reference = made(shape, head=head)
    family, model, _ = twin(reference)
    assert not model.heads
    ids, valid = inputs(True)
    base = getattr(reference, "esm", reference)
    same(
        model({"protein": words(ids, valid)})["enc"].x, base(ids, attention_mask=valid.long()).last_hidden_state, valid
    )
    again = comes_back(reference, family, model)
    for name, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_frequencies_are_those_of_the_file(tmp_path):
    """Files of larger models hold them in half precision, in older ones once per block, beside a table that nothing uses.
    transformers reads such a folder, and so do we, with the same numbers."""
    reference = made(SHAPES[0])
    config, state = files(reference)
    half = state.pop("esm.encoder.layer.*.attention.self.rotary_embeddings.inv_freq").half().float()  # sic
    for block in range(3):
        state[f"esm.encoder.layer.{block}.attention.self.rotary_embeddings.inv_freq"] = half
    state["esm.embeddings.position_embeddings.weight"] = torch.randn(LENGTH + 3, 32)
    state["esm.embeddings.position_ids"] = torch.arange(LENGTH + 3)[None]
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({name: value.clone() for name, value in state.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    theirs, ours = EsmForMaskedLM.from_pretrained(tmp_path).eval(), load_published(tmp_path)
    assert torch.equal(ours.trunks["enc"].position.frequencies, half)
    ids, valid = inputs(False)
    found = ours.logits(ids)
    same(found, theirs(ids, attention_mask=valid.long()).logits)
    assert (found - reference(ids, attention_mask=valid.long()).logits).abs().max() > 1e-5
    ours.bfloat16()
    assert torch.equal(ours.trunks["enc"].position.frequencies, half)


def test_letters(tmp_path):
    """A folder with ESM's vocab.txt: letters become the ids that EsmTokenizer makes of them; hidden ones are filled in."""
    reference = made(SHAPES[0])
    reference.save_pretrained(tmp_path)
    vocabulary = [
        *[
            "<cls>",
            "<pad>",
            "<eos>",
            "<unk>",
            "L",
            "A",
            "G",
            "V",
            "S",
            "E",
            "R",
            "T",
            "I",
            "D",
            "P",
            "K",
            "Q",
            "N",
            "F",
            "Y",
            "M",
            "H",
            "W",
            "C",
            "X",
            "B",
            "U",
            "Z",
            "O",
            ".",
            "-",
            "<null_1>",
            "<mask>",
        ]
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    model = load_published(tmp_path)
    tokenizer = transformers.EsmTokenizer.from_pretrained(tmp_path)
    raws = ["MKTAYIAKQR", "GWX"]
    theirs = tokenizer(raws, padding=True, return_tensors="pt")
    batch = model.tokenize(raws)["protein"]
    assert torch.equal(batch.values.masked_fill(~batch.valid, 1), theirs["input_ids"])
    mean = [row[keep.bool()].mean(0) for row, keep in zip(reference.esm(**theirs)[0], theirs["attention_mask"])]
    same(torch.from_numpy(model.embed(raws)), torch.stack(mean))


def test_a_row_of_masks_is_finite():
    """Where theirs divides by 0."""
    reference = made(SHAPES[0])
    family, model, _ = twin(reference)
    ids = torch.full((1, 5), MASK)
    assert torch.isnan(reference(ids, attention_mask=torch.ones_like(ids)).logits).all()
    assert torch.isfinite(model.logits(ids)).all()
    assert family_of(reference).kind == "esm2" and family.config.token_dropout
