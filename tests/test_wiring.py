"""Encoders, decoders, towers and fusions are wiring: each published layout as a recipe of plain data, run both ways."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from sevenfold.assembly.prompt import NEVER
from sevenfold.conformance._kit import counted
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode
from sevenfold.core.types import Stream
from sevenfold.data.loader import gather
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import Recipe

DIGITS = {"kind": "digits", "limit": 48}
TEXT = {"kind": "text", "field": "caption", "pack": False}
PLACED = {**TEXT, "tokenizer": {"kind": "placed", "place": " "}}
IMAGE = {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}}
CODES = {"kind": "image", "tokenizer": {"kind": "quantized_patch", "patch": 4, "size": 16}}
CAUSAL = {"causal": True}
AXIAL = {"position": "axial_rotary"}


def trunk(*inputs, width=32, depth=2, **more):
    return {"inputs": list(inputs), "width": width, "depth": depth, **more}


def recipe(streams, trunks, objective, **more):
    return {"data": DIGITS, "streams": streams, "trunks": trunks, "objective": objective, **more}


NEXT = {"kind": "next_token"}
SYSTEMS = {
    "gpt": recipe({"text": TEXT}, {"lm": trunk("text", mask=CAUSAL)}, NEXT),
    "bert": recipe(
        {"text": TEXT},
        {"enc": trunk("text", input_norm=True, index=True, position="learned", block={"post_norm": True})},
        {"kind": "masked_token"},
    ),
    "vit": recipe(
        {"image": IMAGE, "label": "label"},
        {"enc": trunk("image", class_token=True, registers=2, index=True, position={"kind": "learned", "size": 19})},
        {"kind": "supervised", "pool": "class"},
    ),
    "numbered": recipe(
        {"text": TEXT},
        {"lm": trunk("text", class_token=True, index=True, position="learned", mask={"causal": True, "window": 4})},
        NEXT,
    ),
    "t5": recipe(
        {"src": TEXT, "tgt": TEXT},
        {"enc": trunk("src", width=24), "dec": trunk("tgt", cross_attends="enc", mask=CAUSAL, position="alibi")},
        {**NEXT, "trunk": "dec"},
    ),
    "vilt": recipe(
        {"image": IMAGE, "text": TEXT, "label": "label"},
        {"both": trunk("image", "text", class_token=True, stream_embedding=True, **AXIAL)},
        {"kind": "supervised", "pool": "class"},
    ),
    "clip": recipe(
        {"image": IMAGE, "text": TEXT},
        {"v": trunk("image", **AXIAL), "t": trunk("text", width=24, mask=CAUSAL)},
        {"kind": "infonce", "pool": "last"},
    ),
    "llava": recipe(
        {"image": IMAGE, "text": TEXT},
        {"v": trunk("image", frozen=True, **AXIAL), "lm": trunk("v", "text", mask=CAUSAL, **AXIAL)},
        {**NEXT, "trunk": "lm"},
    ),
    "flamingo": recipe(
        {"image": IMAGE, "text": TEXT},
        {"v": trunk("image", width=24, frozen=True, **AXIAL), "lm": trunk("text", cross_attends="v", mask=CAUSAL)},
        {**NEXT, "trunk": "lm"},
    ),
    "spliced": recipe(
        {"image": IMAGE, "text": PLACED},
        {
            "v": trunk("image", class_token=True, width=24, **AXIAL),
            "lm": trunk(
                "v",
                "text",
                index=True,
                mask=CAUSAL,
                entries={"v": {"connector": "mlp", "extras": False, "splice": {"stream": "text"}}},
            ),
        },
        {**NEXT, "trunk": "lm"},
    ),
    "early": recipe(
        {"image": IMAGE, "text": TEXT},
        {
            "both": trunk(
                "text",
                "image",
                position="none",
                stream_embedding=True,
                entries={
                    "text": {"mark": True, "position": "learned", "norm": True},
                    "image": {
                        "position": {"kind": "stretched", "rows": 3, "columns": 3, "class_row": True},
                        "class_token": True,
                    },
                },
            )
        },
        {"kind": "masked_token", "stream": "text"},
    ),
    "mae": recipe(
        {"image": IMAGE},
        {"enc": trunk("image", class_token=True, **AXIAL), "dec": trunk("enc", width=24, depth=1, **AXIAL)},
        {"kind": "mae"},
    ),
    "prefix": recipe(
        {"image": IMAGE, "text": TEXT},
        {"lm": trunk("image", "text", mask={"causal": True, "prefix": True}, **AXIAL)},
        {**NEXT, "stream": "text"},
    ),
    "any_to_any": recipe(
        {"text": TEXT, "image": CODES},
        {"lm": trunk("text", "image", class_token=True, mask=CAUSAL, **AXIAL)},
        {**NEXT, "orders": [["text", "image"], ["image", "text"], ["image"]]},
    ),
    "neighbours": recipe(
        {"text": TEXT, "image": IMAGE, "label": "label"},
        {"both": trunk("text", "image", class_token=True, block=[{"mixer": "conv"}, {"mixer": "min_gru"}], **AXIAL)},
        {"kind": "supervised"},
    ),
    "window": recipe(
        {"text": TEXT, "image": IMAGE, "label": "label"},
        {"both": trunk("text", "image", mask={"window": 3}, **AXIAL)},
        {"kind": "supervised"},
    ),
    "hybrid": recipe(
        {"image": IMAGE, "text": TEXT},
        {
            "lm": trunk(
                "image", "text", depth=3, mask=CAUSAL, block=[{"mixer": "conv"}, {"mixer": "min_gru"}, {}], **AXIAL
            )
        },
        {**NEXT, "stream": "text"},
    ),
}
READY: dict = {}


def ready(name):
    """A system, ready to train; made once."""
    if name not in READY:
        READY[name] = prepare(decode(Recipe, SYSTEMS[name], name))
    return READY[name]


def batch_of(name, rows=6):
    return gather([ready(name).train[0, index] for index in range(rows)])[0]


def lively(model):
    """A copy in float64 with weights that do something, so that equality means something."""
    model = copy.deepcopy(model).double().eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def doubled(batch):
    return {name: s if s.discrete else s._replace(values=s.values.double()) for name, s in batch.items()}


@pytest.mark.parametrize("name", SYSTEMS)
def test_forward_and_backward(name):
    objective = copy.deepcopy(ready(name).objective).train()
    loss = objective(batch_of(name))
    assert torch.isfinite(loss.total) and loss.count > 0
    loss.total.backward()
    for place, parameter in objective.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.any(), place
        else:
            assert place.startswith("model.trunks.v.") and parameter.grad is None


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "any_to_any"])
def test_flops_are_what_the_counter_counts(name):
    objective, batch = ready(name).objective, batch_of(name)
    assert objective.flops(batch) == pytest.approx(counted(lambda: objective(batch)), rel=0.05)


@pytest.mark.parametrize("name", SYSTEMS)
def test_batch_mates_and_their_padding_change_nothing(name):
    model, batch = lively(ready(name).model), doubled(batch_of(name))
    together = model(batch)
    for row in range(6):
        alone = {}
        for stream, tokens in batch.items():
            keep = slice(None) if tokens.valid is None else tokens.valid[row]
            values, coords = tokens.values[row, keep][None], tokens.coords[row, keep][None]
            alone[stream] = Stream(values, coords)
        for place, hidden in model(alone).items():
            x, valid = together[place].x[row], together[place].valid
            x = x if valid is None else x[valid[row]]
            own = hidden.x[0] if hidden.valid is None else hidden.x[0, hidden.valid[0]]
            torch.testing.assert_close(own, x, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("name", "changed"),
    [("t5", "src"), ("llava", "image"), ("spliced", "image"), ("flamingo", "image"), ("prefix", "image")],
)
def test_what_is_read_through_another_trunk_matters(name, changed):
    model, batch = lively(ready(name).model), doubled(batch_of(name))
    last = list(model.trunks)[-1]
    before = model(batch)[last].of(ready(name).objective.predicted[0]).x
    other = {**batch, changed: batch[changed].rows(torch.arange(6).flip(0))}
    after = model(other)[last].of(ready(name).objective.predicted[0]).x
    assert (before - after).abs().max() > 1e-6


# Stepping and drawing


@pytest.mark.parametrize("name", ["gpt", "numbered", "t5", "llava", "flamingo", "prefix", "any_to_any", "hybrid"])
@torch.no_grad()
def test_stepping_is_the_full_pass(name):
    model, batch = lively(ready(name).model), doubled(batch_of(name, rows=1))
    trunk = model.trunks[ready(name).objective.trunk]
    earlier = model.earlier(batch, ready(name).objective.trunk)
    wanted = trunk(batch, earlier).x
    names = [given for given in trunk.config.inputs if given in batch or given in earlier]
    whole = trunk.join([trunk.embed(given, batch.get(given, earlier.get(given))) for given in names])
    n, state, found, start = whole.x.shape[1], trunk.start(1, whole.x.shape[1]), [], 0
    stop = whole.spans[names[0]][1]
    prefix = torch.tensor([stop]) if trunk.config.mask.prefix else None
    for size in [stop, 1, 2, n - stop - 3] if len(names) > 1 else [1, 3, n - 4]:
        piece = whole._replace(
            x=whole.x[:, start : start + size],
            coords=None if whole.coords is None else whole.coords[:, start : start + size],
            spans=None,
        )
        hidden, state = trunk.step(piece, state, earlier.get(trunk.config.cross_attends), prefix)
        found.append(hidden.x)
        start += size
    torch.testing.assert_close(torch.cat(found, 1), wanted, atol=1e-10, rtol=0)


def by_hand(model, name, stream, begun, given, length):
    """Greedy drawing with one full pass per token."""
    objective, modality = ready(name).objective, model.modalities[stream]
    trunk, specials = model.trunks[objective.trunk], model.modalities[stream].tokenizer.specials
    ids = [specials["bos"], *modality.tokenizer.encode(begun).values.tolist()] if begun else [specials["bos"]]
    tokens = {key: value.to("cpu") for key, value in doubled(model.tokenize([given])).items()} if given else {}
    for _ in range(length):
        text = Stream(torch.tensor([ids]), torch.arange(len(ids))[None, :, None])
        batch = {**tokens, stream: text}
        hidden = trunk(batch, model.earlier(batch, objective.trunk))
        logits = model.head(objective.head_of[stream], hidden.x[:, -1])[0]
        logits[[specials[special] for special in NEVER if special in specials]] = float("-inf")
        ids.append(int(logits.argmax()))
        if ids[-1] == specials["eos"]:
            break
    return modality.raw(np.array(ids))


@pytest.mark.parametrize("name", ["gpt", "numbered", "t5", "llava", "spliced", "flamingo", "prefix", "hybrid"])
@torch.no_grad()
def test_drawing_is_the_full_pass_again_and_again(name):
    model, stream = lively(ready(name).model).float(), ready(name).objective.predicted[0]
    model.double()
    samples = ready(name).samples(3)
    others = [other for other in model.modalities if other != stream]
    prompts = ["a", "number f", "th"]
    given = {other: [sample[other] for sample in samples] for other in others}
    if any(not m.tokenizer.size for m in model.modalities.values()):
        model.float()
    found = model.generate(prompts, stream=stream, given=given, temperature=0, length=6)
    for row, (prompt, drawn) in enumerate(zip(prompts, found)):
        one = {other: raws[row] for other, raws in given.items()}
        reference = copy.deepcopy(model).double()
        assert drawn == by_hand(reference, name, stream, prompt, one, 6)


def test_guidance_and_absent_conditions():
    for name in ("t5", "llava", "spliced", "flamingo"):
        model, stream = ready(name).model, ready(name).objective.predicted[0]
        other = next(iter(model.modalities))
        raws = [sample[other] for sample in ready(name).samples(2)]
        assert len(model.generate(stream=stream, given={other: raws}, guidance=2.0, length=3)) == 2
        assert len(model.generate(stream=stream, count=2, length=3)) == 2
        with pytest.raises(ConfigError, match="does not read 'nothing'"):
            model.generate(stream=stream, given={"nothing": raws})


# Coordinates, spans, numbering


def test_streams_share_an_axis_exactly_when_they_name_the_same():
    streams = {"image": IMAGE, "a": TEXT, "b": {**TEXT, "axes": ["token"]}, "c": {**TEXT, "axes": ["other"]}}
    both = trunk("image", "a", "b", "c", mask=CAUSAL, **AXIAL)
    model = prepare(decode(Recipe, recipe(streams, {"lm": both}, {**NEXT, "stream": "a"}))).model
    lm = model.trunks["lm"]
    assert lm.axes == ("row", "column", "token", "other")
    stream = Stream(torch.zeros(1, 2, dtype=torch.long), torch.tensor([[[5], [6]]]))
    for name, column in (("a", 2), ("b", 2), ("c", 3)):
        coords = lm.embed(name, stream).coords
        assert coords[0, :, column].tolist() == [5, 6]
        assert coords.sum() == 11
    image = Stream(torch.zeros(1, 1, 4), torch.tensor([[[2, 3]]]))
    assert lm.embed("image", image).coords.tolist() == [[[2, 3, 0, 0]]]


def test_spans_name_the_tokens_of_every_input():
    hidden = ready("vit").model(batch_of("vit"))["enc"]
    assert hidden.spans == {"class": (0, 1), "registers": (1, 3), "image": (3, 19)}
    assert hidden.of("image").x.shape == (6, 16, 32)
    both = ready("vilt").model(batch_of("vilt"))["both"]
    n = both.spans["text"][1] - both.spans["text"][0]
    assert both.spans == {"class": (0, 1), "registers": (1, 1), "image": (1, 17), "text": (17, 17 + n)}
    torch.testing.assert_close(both.of("text").valid, batch_of("vilt")["text"].valid)


def test_index_numbers_the_joined_tokens_and_leaves_padding_out():
    streams = {"image": IMAGE, "text": TEXT}
    one = {
        "lm": trunk(
            "text", "image", class_token=True, index=True, position={"kind": "learned", "size": 64}, mask=CAUSAL
        )
    }
    made = prepare(decode(Recipe, recipe(streams, one, {**NEXT, "stream": "text"})))
    lm, batch = made.model.trunks["lm"], gather([made.train[0, index] for index in range(4)])[0]
    hidden = lm(batch)
    assert lm.axes == ("index",)
    for coords, valid in zip(hidden.coords[..., 0], hidden.valid):
        assert coords[valid].tolist() == list(range(int(valid.sum())))


# What cannot work is refused, with its place

WRONG = {
    "later": (
        {"trunks": {"a": trunk("b", "text"), "b": trunk("text")}},
        r"trunks\.a\.inputs: 'b' comes later .* earlier trunks only",
    ),
    "cycle": ({"trunks": {"a": trunk("a")}}, r"trunks\.a\.inputs: 'a' comes later \(or is itself\)"),
    "later memory": ({"trunks": {"a": trunk("text", cross_attends="a")}}, r"trunks\.a\.cross_attends: 'a' comes later"),
    "memory of a stream": (
        {"trunks": {"a": trunk("text", cross_attends="text")}},
        r"trunks\.a\.cross_attends: there is no",
    ),
    "unknown input": (
        {"trunks": {"a": trunk("txet")}},
        r"trunks\.a\.inputs: there is no 'txet'; did you mean 'text'\?",
    ),
    "twice": ({"trunks": {"a": trunk("text", "text")}}, r"trunks\.a\.inputs: an input is named twice"),
    "stream's name": ({"trunks": {"text": trunk("text")}}, r"trunks\.text: a stream has the same name"),
    "head's trunk": ({"heads": {"h": {"trunk": "x", "outputs": 1}}}, r"heads\.h\.trunk: there is no 'x'"),
    "head's stream": ({"heads": {"h": {"trunk": "lm", "stream": "x"}}}, r"heads\.h\.stream: there is no 'x'"),
    "heads and width": (
        {"trunks.lm.block": {"mixer": {"kind": "attention", "heads": 5}}},
        r"trunks\.lm: block: attention: 5 heads do not divide the width 32",
    ),
    "key heads": (
        {"trunks.lm.block": {"mixer": {"kind": "attention", "heads": 4, "kv_heads": 3}}},
        r"trunks\.lm: block: attention: 3 kv_heads do not divide 4 heads",
    ),
    "two norms": (
        {"trunks.lm.block": {"post_norm": True, "output_norm": True}},
        r"trunks\.lm: block: post_norm and output_norm are two places for the same norm",
    ),
    "cross as mixer": (
        {"trunks.lm.block": {"mixer": "cross"}},
        r"trunks\.lm: block: block\.mixer: 'cross' reads another",
    ),
    "mixer as cross": (
        {
            "trunks": {
                "e": trunk("text"),
                "lm": trunk("text", mask=CAUSAL, cross_attends="e", block={"cross": "conv"}),
            },
            "objective.trunk": "lm",
        },
        r"trunks\.lm: block: block\.cross: 'conv' does not read another trunk",
    ),
    "cross without memory": (
        {"trunks.lm.block": {"cross": "cross"}},
        r"trunks\.lm: block 0: 'cross' reads another trunk: set cross_attends",
    ),
    "window ignored": (
        {"trunks.lm.block": {"mixer": "conv"}, "trunks.lm.mask.window": 4},
        r"trunks\.lm: block 0: 'conv' does not heed mask\.window",
    ),
    "prefix ignored": (
        {"trunks.lm.block": [{}, {"mixer": "min_gru"}], "trunks.lm.mask.prefix": True},
        r"trunks\.lm: block 1: 'min_gru' does not heed mask\.prefix",
    ),
    "predicted prefix": (
        {
            "streams": {"a": TEXT, "b": TEXT},
            "trunks": {"lm": trunk("a", "b", mask={"causal": True, "prefix": True})},
        },
        r"objective\.stream: the tokens of 'a' see each other",
    ),
    "causal objective": ({"trunks.lm.mask": {"causal": False}}, r"needs trunks\.lm\.mask\.causal: true"),
    "causal bert": ({"objective": {"kind": "masked_token"}}, r"set trunks\.lm\.mask\.causal to false"),
    "axes": (
        {"streams": {"text": IMAGE}},
        r"trunks\.lm: position 'rotary' reads one axis, and this trunk's tokens have 2",
    ),
    "narrow heads": (
        {"trunks.lm.block": {"mixer": {"kind": "attention", "heads": 32}}},
        r"trunks\.lm: position 'rotary': heads of width 1 hold no pair",
    ),
    "short table": (
        {"trunks.lm.position": {"kind": "learned", "size": 8}},
        r"trunks\.lm: position: 'learned' reaches 8 places, and text has up to \d+: raise position\.size to \d+",
    ),
    "short table, numbered": (
        {"trunks.lm.position": {"kind": "learned", "size": 8}, "trunks.lm.index": True, "trunks.lm.class_token": True},
        r"trunks\.lm: position: 'learned' reaches 8 places",
    ),
    "projection of ids": (
        {"streams.text.projection": "patch_embed"},
        r"streams\.text\.projection: 'patch_embed' does not fit tokens that are ids: choose embedding",
    ),
    "blocks of embeddings": (
        {"trunks.lm.block": {"projection": "tied"}},
        r"block\.projection: 'tied' does not map vectors",
    ),
    "head of ids": (
        {"heads": {"h": {"trunk": "lm", "outputs": 2, "projection": "embedding"}}},
        r"heads\.h\.projection: 'embedding' reads ids",
    ),
    "entry of nothing": (
        {"trunks.lm.entries": {"txet": {"norm": True}}},
        r"trunks\.lm: entries: 'txet' is not an input; did you mean 'text'\?",
    ),
    "connector of a stream": (
        {"trunks.lm.entries": {"text": {"connector": "mlp"}}},
        r"trunks\.lm: entries\.text\.connector: 'text' is a stream, and this is for earlier trunks",
    ),
    "extras of a stream": (
        {"trunks.lm.entries": {"text": {"extras": False}}},
        r"trunks\.lm: entries\.text\.extras: 'text' is a stream",
    ),
    "class token in a causal trunk": (
        {"trunks.lm.entries": {"text": {"class_token": True}}},
        r"trunks\.lm: entries\.text\.class_token: a causal trunk has one start",
    ),
    "gated experts between trunks": (
        {
            "trunks": {
                "e": trunk("text"),
                "lm": trunk("e", mask=CAUSAL, entries={"e": {"connector": {"kind": "mlp", "nonlinearity": "moe"}}}),
            },
            "objective.trunk": "lm",
            "heads": {"h": {"trunk": "lm", "stream": "text"}},
        },
        r"trunks\.lm: connector: 'moe' is no pointwise nonlinearity",
    ),
    "tied to nothing": (
        {"heads": {"h": {"trunk": "lm", "outputs": 2, "projection": "tied"}}},
        r"heads\.h: a tied head needs a stream that trunk 'lm' reads",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_wiring_is_refused_with_its_place(name):
    from sevenfold.core.part import override

    changes, message = WRONG[name]
    data = SYSTEMS["gpt"]
    for place, value in changes.items():
        data = override(data, place, value)
    with pytest.raises(ConfigError, match=message) as caught:
        prepare(decode(Recipe, data))
    assert "\n" not in str(caught.value)


def test_a_head_tied_to_vectors_is_refused():
    data = recipe(
        {"image": IMAGE, "label": "label"},
        {"enc": trunk("image", **AXIAL)},
        {"kind": "supervised"},
        heads={"h": {"trunk": "enc", "stream": "image", "projection": "tied"}},
    )
    with pytest.raises(ConfigError, match=r"heads\.h: a tied head predicts ids, and stream 'image' has vectors"):
        prepare(decode(Recipe, data))


def test_a_frozen_trunk_stays_in_evaluation_and_is_not_trained():
    model = ready("llava").model.train()
    assert model.trunks["lm"].training and not model.trunks["v"].training
    assert not any(parameter.requires_grad for parameter in model.trunks["v"].parameters())
