"""T5 and mT5 against transformers: streams of both trunks, logits, loss, gradients, weights, drawing, and the way back."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    T5Model,
)
from transformers.models.mt5.modeling_mt5 import MT5LayerNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm
from twins import comes_back, family_of, files, layers, ragged, same, same_gradients, stirred, twin, words

from sevenfold.assembly.model import Model
from sevenfold.core.errors import CheckpointError
from sevenfold.core.part import find
from sevenfold.core.types import Hidden, Mask

PAD, END = 256, 258
SHAPES = {
    "tied": {"d_model": 32, "d_kv": 5, "num_heads": 4, "d_ff": 48, "num_layers": 3, "vocab_size": 300},
    "later": {
        "d_model": 21, "d_kv": 8, "num_heads": 3, "d_ff": 13, "num_layers": 2, "num_decoder_layers": 3, "vocab_size": 271,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 9,
    },
    "small": {
        "d_model": 9, "d_kv": 2, "num_heads": 1, "d_ff": 20, "num_layers": 1, "vocab_size": 261, "layer_norm_epsilon": 1e-3,
        "feed_forward_proj": "gated-silu", "tie_word_embeddings": False,
    },
    "mt5": {
        "d_model": 16, "d_kv": 6, "num_heads": 2, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 1, "vocab_size": 300,
        "feed_forward_proj": "gated-gelu",
    },
}  # fmt: skip
SOURCE, TARGET = 19, 15


def made(name: str, dtype: torch.dtype = torch.float32, kind: type | None = None, **changes) -> PreTrainedModel:
    config, whole = (
        (MT5Config, MT5ForConditionalGeneration) if name == "mt5" else (T5Config, T5ForConditionalGeneration)
    )
    shape = {**SHAPES[name], "pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": PAD, **changes}
    reference = (kind or whole)(config(**shape))
    if name != "tied" and kind is None:  # published files hold a head of its own, which is tied in what is made anew
        reference.lm_head.weight = torch.nn.Parameter(reference.lm_head.weight.clone())
        reference.config.tie_word_embeddings = False
    return stirred(reference).to(dtype)


def tiny() -> PreTrainedModel:
    return made("tied")


TINY = {"t5": tiny, "mt5": lambda: made("mt5")}


@pytest.fixture
def exact(monkeypatch, dtype):
    """The reference's norms in float64, where it would take their mean square in float32."""

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    if dtype == torch.float64:
        for norm in (T5LayerNorm, MT5LayerNorm):
            monkeypatch.setattr(norm, "forward", forward)


def inputs(padded: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids and which are there, of source and target (which begins with padding)."""
    torch.manual_seed(1)
    source, target = torch.randint(250, (3, SOURCE)), torch.randint(250, (3, TARGET))
    target[:, 0] = PAD
    first = ragged(source, [SOURCE, 1, 7] if padded else [SOURCE] * 3)
    return source, first, target, ragged(target, [2, TARGET, 9] if padded else [TARGET] * 3)


def batch(padded: bool) -> dict:
    source, first, target, second = inputs(padded)
    return {
        "source": words(source, first if padded else None),
        "target": words(target, second if padded else None),
    }


BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
PADDED = pytest.mark.parametrize("padded", [False, True])
ALL = pytest.mark.parametrize("name", SHAPES)


@BOTH
@PADDED
@ALL
def test_streams_and_logits(name, padded, dtype, exact):
    reference = made(name, dtype)
    _, model, _ = twin(reference)
    source, first, target, second = inputs(padded)
    theirs = reference(
        source,
        attention_mask=first.long(),
        decoder_input_ids=target,
        decoder_attention_mask=second.long(),
        output_hidden_states=True,
    )
    (done, inside), outside = layers(
        model.trunks["enc"], lambda: layers(model.trunks["dec"], lambda: model(batch(padded)))
    )
    for trunk, seen, states, valid in (
        ("enc", outside, theirs.encoder_hidden_states, first),
        ("dec", inside, theirs.decoder_hidden_states, second),
    ):
        assert len(seen) == len(states) == len(model.trunks[trunk].blocks) + 1
        for ours, their in zip([*seen[:-1], done[trunk].x], states):  # their last one is after the norm
            same(ours, their, valid)
    same(model.head("target", done["dec"].x), theirs.logits, second)


@BOTH
@PADDED
@ALL
def test_loss_and_gradients(name, padded, dtype, exact):
    reference = made(name, dtype)
    family, model, objective = twin(reference, kind="next_token", trunk="dec", stream="target")  # of pairs
    source, first, target, second = inputs(padded)
    labels = target[:, 1:].masked_fill(~second[:, 1:], -100)
    theirs = reference(
        source,
        attention_mask=first.long(),
        decoder_input_ids=target[:, :-1],
        decoder_attention_mask=second[:, :-1].long(),
        labels=labels,
    )
    ours = objective(batch(padded))
    same(ours.mean, theirs.loss)
    theirs.loss.backward()
    ours.mean.backward()
    same_gradients(reference, family, model)


@ALL
def test_the_way_back(name):
    reference = made(name)
    family, model, _ = twin(reference)
    again = comes_back(reference, family, model)
    for key, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    source, _, target, _ = inputs(False)
    assert torch.equal(
        again(source, decoder_input_ids=target).logits, reference(source, decoder_input_ids=target).logits
    )


@pytest.mark.parametrize("name", ["tied", "later"])
def test_attention_weights(name):
    reference = made(name)
    reference.set_attn_implementation("eager")
    _, model, _ = twin(reference)
    source, first, target, second = inputs(True)
    asked = {"attention_mask": first.long(), "decoder_attention_mask": second.long(), "output_attentions": True}
    theirs = reference(source, decoder_input_ids=target, **asked)
    done, seen = layers(model.trunks["dec"], lambda: model(batch(True)))
    place = torch.arange(TARGET).expand(3, -1)[..., None]
    for block, x, own, across in zip(
        model.trunks["dec"].blocks, seen, theirs.decoder_attentions, theirs.cross_attentions
    ):
        hidden = Hidden(x, place, second, bias=model.trunks["dec"].position.bias, memory=done["enc"])
        normed = hidden._replace(x=block.norms[0](x))
        same(block.mixer.weights(normed, Mask(causal=True))[:1, :, :2], own[:1, :, :2])
        middle = x + block.mixer(normed, Mask(causal=True))
        same(block.cross.weights(hidden._replace(x=block.norms[1](middle)))[1], across[1])


@pytest.mark.parametrize("kind", [T5EncoderModel, T5Model])
def test_without_a_head(kind):
    reference = made("tied", kind=kind)
    family, model, _ = twin(reference)
    source, first, target, second = inputs(True)
    if kind is T5EncoderModel:
        theirs = reference(source, attention_mask=first.long()).last_hidden_state
        assert list(model.trunks) == ["enc"] and list(model.modalities) == ["source"] and not model.heads
        same(model({"source": words(source, first)})["enc"].x, theirs, first)
    else:
        asked = {"attention_mask": first.long(), "decoder_attention_mask": second.long()}
        theirs = reference(source, decoder_input_ids=target, **asked).last_hidden_state
        assert not model.heads
        same(model(batch(True))["dec"].x, theirs, second)
    comes_back(reference, family, model)


def spoken(reference: PreTrainedModel) -> Model:
    """Ours with a tokenizer of bytes, whose padding is the start, drawing ids."""
    family = family_of(reference)
    config = family.model()
    bytewise = find("tokenization", "bytes").Config()
    streams = {name: stream.replace(tokenizer=bytewise, ends=False) for name, stream in config.streams.items()}
    config = config.replace(streams=streams)
    model = Model(config, {name: stream.build() for name, stream in streams.items()}).eval()
    family.load(files(reference)[1], model)
    model.modalities["target"].raw = lambda values, coords: values.tolist()  # ids, not text
    return model


def drawing(name: str) -> tuple[PreTrainedModel, Model]:
    """A pair whose end token is likely at times."""
    # In theirs the cache is of as many blocks as the encoder has.
    reference = made(name, vocab_size=260, num_decoder_layers=SHAPES[name]["num_layers"])
    with torch.no_grad():
        reference.lm_head.weight[END] *= 4
    return reference, spoken(reference)


def sources() -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Texts, their ids with padding behind, and which are there."""
    raws = ["a", "Once upon a time", "seven rooms", "é", "xyz", "to be or not", "0", "the end"]
    rows = [list(raw.encode()) for raw in raws]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    return raws, ids, ragged(ids, [len(row) for row in rows]).long()


@pytest.mark.parametrize("name", ["tied", "later"])
def test_greedy_drawing(name):
    """Sources of unequal length in one batch, with and without a beginning: what is written is the same, until the end."""
    reference, model = drawing(name)
    raws, ids, there = sources()
    stopped = 0
    for begun in ("", "so"):
        start = [PAD, *begun.encode()]
        begins = torch.tensor([start] * len(raws))
        theirs = reference.generate(ids, attention_mask=there, decoder_input_ids=begins, max_new_tokens=12, **ALIKE)
        ours = model.generate([begun] * len(raws), given={"source": raws}, stream="target", temperature=0, length=12)
        for raw, our, their in zip(raws, ours, theirs.tolist()):
            alone = model.generate(begun, given={"source": [raw]}, stream="target", temperature=0, length=12)[0]
            assert our[: len(start)] == start == their[: len(start)]
            ours_new, theirs_new, alone_new = (until_end(ids[len(start) :]) for ids in (our, their, alone))
            assert ours_new == theirs_new == alone_new
            stopped += ours_new[-1] == END
    assert 0 < stopped < 2 * len(raws)


@pytest.mark.parametrize(("beams", "count"), [(2, 1), (4, 3)])
@pytest.mark.parametrize("name", ["tied", "later"])
def test_beams(name, beams, count):
    reference, model = drawing(name)
    raws, ids, there = sources()
    asked = {"num_beams": beams, "num_return_sequences": count, "max_new_tokens": 10}
    theirs = reference.generate(ids, attention_mask=there, **asked, **ALIKE)
    ours = model.draw(given={"source": raws}, stream="target", beams=beams, count=count, length=10)
    assert [one.ids for one in ours] == [until_end(row[1:]) for row in theirs.tolist()]


ALIKE = {"do_sample": False, "suppress_tokens": [256, 257, 259]}


def until_end(ids: list[int]) -> list[int]:
    return ids[: ids.index(END) + 1] if END in ids else ids


def test_one_table_in_two_trunks():
    """It is one parameter under one name, and both trunks move it."""
    _, model, objective = twin(made("tied"), "next_token", trunk="dec", stream="target")
    names = [name for name, _ in model.named_parameters() if "embeds" in name]
    assert names == ["trunks.enc.embeds.source.weight"] == [name for name in model.state_dict() if "embeds" in name]
    table = model.trunks["enc"].embeds["source"].weight
    assert model.trunks["dec"].embeds["target"].weight is table
    batch = {"source": words(torch.full((1, 3), 7)), "target": words(torch.full((1, 3), 9))}
    hidden = model(batch)["dec"].x.sum()
    hidden.backward()
    assert set(table.grad.any(1).nonzero()[:, 0].tolist()) == {7, 9}


def test_what_is_made_anew_has_a_tied_head_without_the_factor():
    """transformers ties whatever it begins; what it writes then is read, and the head is of its own from there on."""
    config = T5Config(**SHAPES["later"], pad_token_id=PAD, decoder_start_token_id=PAD)
    reference = stirred(T5ForConditionalGeneration(config))
    assert "lm_head.weight" not in files(reference)[1]
    family, model, _ = twin(reference)
    source, _, target, _ = inputs(False)
    theirs = reference(source, decoder_input_ids=target).logits
    same(model.head("target", model(batch(False))["dec"].x), theirs)
    with torch.no_grad():
        model.heads["target"].projection.weight.mul_(0.5)
    assert not torch.equal(model.heads["target"].projection.weight, model.trunks["enc"].embeds["source"].weight)
    again = comes_back(reference, family, model)
    assert torch.equal(again.lm_head.weight, model.heads["target"].projection.weight)
    same(model.head("target", model(batch(False))["dec"].x), again(source, decoder_input_ids=target).logits)


def test_copies_in_older_files():
    """The first published files hold the table up to four times, and a bias that nothing reads."""
    reference = made("tied")
    family, state = family_of(reference), files(reference)[1]
    unread = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    old = {**state, **{name: state["shared.weight"].clone() for name in names}, unread: torch.ones(32, 4)}
    assert family.from_published(old).keys() == family.from_published(state).keys() | {f"luggage.{unread}"}
    assert torch.equal(family.to_published(family.from_published(old))[unread], old[unread])
    with pytest.raises(CheckpointError, match=r"'lm_head.weight' is not a copy of 'shared.weight'"):
        family.from_published({**old, "lm_head.weight": old["lm_head.weight"] + 1})
