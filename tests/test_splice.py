"""Splicing, entries, placeholders in texts, and the stretched table, each against what is made by hand."""

from __future__ import annotations

import copy

import pytest
import tokenizers
import torch
import torch.nn.functional as F
from tokenizers import decoders, models, pre_tokenizers, trainers

from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.assembly.pieces import moved, preceding, reading_order
from sevenfold.assembly.pool import pool
from sevenfold.conformance._kit import compiled
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, find
from sevenfold.core.types import Hidden, Stream, take
from sevenfold.objective.next_token import NextToken

PLACE, WIDTH = 260, 32
ROWS = ([5, 0, 3], [2, 4, 6])
"""Words before the picture and behind it; the third row says the placeholder twice, side by side."""


def model_of(block=None, index=True, position="rotary", entry=None, inputs=("v", "text"), **trunk) -> Model:
    """A tower that makes 5 vectors of a picture (class token, 4 patches), and a causal trunk that reads them in a text."""
    streams = {
        "image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2, "channels": 1}},
        "text": {"kind": "text", "tokenizer": "placed"},
    }
    entry = {"splice": {"stream": "text"}, **(entry or {})}
    lm = {
        "inputs": inputs, "width": WIDTH, "depth": 2, "mask": {"causal": True}, "block": block or {}, "index": index,
        "position": position, "entries": {"v": entry}, **trunk,
    }  # fmt: skip
    v = {"inputs": ["image"], "width": WIDTH, "depth": 1, "class_token": True, "position": "axial_rotary"}
    heads = {"text": {"trunk": "lm", "stream": "text", "projection": "tied"}}
    config = decode(ModelConfig, {"streams": streams, "trunks": {"v": v, "lm": lm}, "heads": heads})
    torch.manual_seed(0)
    model = Model(config, {name: stream.build() for name, stream in config.streams.items()}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def batch_of() -> dict[str, Stream]:
    torch.manual_seed(1)
    rows = [
        torch.cat([torch.randint(256, (a,)), torch.full((1 + (row == 2),), PLACE), torch.randint(256, (b,))])
        for row, (a, b) in enumerate(zip(*ROWS))
    ]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    valid = torch.tensor([[place < len(row) for place in range(ids.shape[1])] for row in rows])
    coords = torch.cartesian_prod(torch.arange(2), torch.arange(2)).expand(3, -1, -1)
    text = Stream(ids, torch.arange(ids.shape[1]).expand(3, -1)[..., None], valid)
    return {"image": Stream(torch.randn(3, 4, 4).double(), coords), "text": text}


def by_hand(model: Model, batch: dict[str, Stream], row: int, extras: bool = True) -> Hidden:
    """One row: the words before, the picture, the words behind, one after the other, through a trunk without a splice."""
    lm = copy.deepcopy(model.trunks["lm"])
    lm.splice = None
    one = {name: stream.rows([row]) for name, stream in batch.items()}
    v = lm.embed("v", model.trunks["v"](one))
    keep = one["text"].valid[0] & (one["text"].values[0] != PLACE)
    text = lm.embed("text", Stream(one["text"].values, one["text"].coords)).each(lambda part: part[:, keep])
    before = ROWS[0][row]
    whole = [text.each(lambda part: part[:, :before]), v, text.each(lambda part: part[:, before:])]
    whole = [*lm.extras(1, whole[1]), *whole]
    x = torch.cat([piece.x for piece in whole], 1)
    coords = None if lm.config.index else torch.cat([piece.coords for piece in whole], 1)
    return lm.mix(Hidden(x, coords, spans={"all": (0, x.shape[1])}))


BLOCKS = [{}, {"mixer": "conv"}, {"mixer": "min_gru"}, {"mixer": {"kind": "attention", "window": 3}}]


@pytest.mark.parametrize("extras", [True, False])
@pytest.mark.parametrize("inputs", [("v", "text"), ("text", "v")])
@pytest.mark.parametrize(
    ("index", "position"), [(True, "rotary"), (True, {"kind": "learned", "size": 64}), (False, "axial_rotary")]
)
@pytest.mark.parametrize("block", BLOCKS)
def test_a_spliced_row_is_its_pieces_one_after_the_other(block, index, position, inputs, extras):
    model = model_of(block, index, position, {"extras": extras}, inputs, class_token=True)
    batch = batch_of()
    done = model(batch)["lm"]
    read = moved(done, reading_order(done))
    for row in range(3):
        wanted = by_hand(model, batch, row)
        assert int(done.valid[row].sum()) == wanted.x.shape[1] == 1 + 4 + extras + sum(part[row] for part in ROWS)
        torch.testing.assert_close(read.x[row, read.valid[row]], wanted.x[0], atol=1e-10, rtol=0)
        if index:
            assert read.coords[row, read.valid[row], 0].tolist() == list(range(wanted.x.shape[1]))


@pytest.mark.parametrize("inputs", [("v", "text"), ("text", "v")])
def test_the_loss_is_of_each_word_behind_what_is_read_before_it(inputs):
    model, batch = model_of(inputs=inputs, class_token=True), batch_of()
    loss = NextToken(NextToken.Config(trunk="lm", stream="text"), model)(batch)
    total, count = 0.0, 0
    for row in range(3):
        hidden, before = by_hand(model, batch, row), ROWS[0][row]
        logits = model.head("text", hidden.x[0]).log_softmax(-1)
        words = batch["text"].values[row][batch["text"].valid[row] & (batch["text"].values[row] != PLACE)]
        for number, word in enumerate(words):
            total -= logits[number + (0 if number < before else 5), word]  # behind the class token that begins
            count += 1
    assert int(loss.count) == count
    torch.testing.assert_close(loss.total, total, atol=1e-9, rtol=0)


def test_without_a_placeholder_it_stands_in_front_and_without_a_picture_nowhere():
    model, batch = model_of(), batch_of()
    plain = batch["text"]._replace(values=batch["text"].values.clamp(max=255))
    front = model({**batch, "text": plain})["lm"]
    ordinary = copy.deepcopy(model)
    ordinary.trunks["lm"].splice = None
    torch.testing.assert_close(
        front.of("text").x[plain.valid], ordinary({**batch, "text": plain})["lm"].of("text").x[plain.valid]
    )
    alone = model({"text": batch["text"]})["lm"]
    for row in range(3):
        kept = batch["text"].valid[row] & (batch["text"].values[row] != PLACE)
        ids = batch["text"].values[row, kept][None]
        words = model({"text": Stream(ids, torch.arange(ids.shape[1])[None, :, None])})["lm"]
        torch.testing.assert_close(alone.x[row, kept], words.x[0], atol=1e-10, rtol=0)


def test_a_row_without_its_picture():
    model, batch = model_of(), batch_of()
    valid = torch.ones(3, 4, dtype=torch.bool)
    valid[0] = False
    model.trunks["v"].tokens = None  # a class token would be there all the same
    model.trunks["v"].config = model.trunks["v"].config.replace(class_token=False)
    some = model({**batch, "image": batch["image"]._replace(valid=valid)})["lm"].of("text")
    none = model({"text": batch["text"]})["lm"].of("text")
    torch.testing.assert_close(some.x[0, none.valid[0]], none.x[0, none.valid[0]], atol=1e-10, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("block", BLOCKS)
def test_drawing_goes_on_behind_a_spliced_prompt(block):
    """Prompts of unequal length with a picture in each, drawn together: greedily as full passes draw, one after another."""
    model = model_of(block).float()
    text, pictures = model.modalities["text"], torch.rand(3, 4, 4, 1).numpy()
    text.raw = lambda values, coords: values.tolist()
    prompts = ["<image>ab", "see <image> now: ", "c<image>"]
    found = model.generate(prompts, given={"image": list(pictures)}, stream="text", temperature=0, length=5)
    tokens = model.tokenize([{"image": picture} for picture in pictures])["image"]
    never = [text.tokenizer.specials[name] for name in ("pad", "bos", "mask", "place")]
    for row, (prompt, drawn) in enumerate(zip(prompts, found)):
        ids = [257, *text.tokenizer.encode(prompt).values.tolist()]
        for _ in range(5):
            stream = Stream(torch.tensor([ids]), torch.arange(len(ids))[None, :, None])
            done = model({"text": stream, "image": tokens.rows([row])})["lm"]
            last = int(reading_order(done, padding_first=True)[0, -1])
            logits = model.head("text", done.x[0, last])
            logits[never] = float("-inf")
            ids.append(int(logits.argmax()))
            if ids[-1] == 258:
                break
        assert drawn[: len(ids)] == ids


@torch.no_grad()
def test_beams_guesses_and_rows_behind_a_spliced_prompt():
    """Guessing ahead draws the same; beams together are beams one by one."""
    model = model_of().float()
    pictures = list(torch.rand(3, 4, 4, 1).numpy())
    prompts = ["<image>abab", "see <image> now: ", "c<image>"]
    plain, guessed = (
        model.generate(prompts, given={"image": pictures}, stream="text", temperature=0, length=7, **more)
        for more in ({}, {"lookup": 2})
    )
    assert plain == guessed
    together = model.generate(prompts, given={"image": pictures}, stream="text", beams=3, length=5)
    for prompt, picture, found in zip(prompts, pictures, together):
        assert model.generate(prompt, given={"image": picture}, stream="text", beams=3, length=5) == [found]


def test_it_compiles_whole():
    model, batch = model_of(), batch_of()
    earlier = model.earlier(batch, "lm")
    wanted = model.trunks["lm"](batch, earlier).x
    torch.testing.assert_close(compiled(model.trunks["lm"])(batch, earlier).x, wanted, atol=1e-10, rtol=0)


def test_the_order_of_reading():
    hidden = Hidden(
        torch.zeros(1, 6, 1),
        valid=torch.tensor([[True, True, True, False, True, True]]),
        places=torch.tensor([[1, 1, 0, 0, 2, 0]]),
    )
    assert reading_order(hidden).tolist() == [[2, 5, 0, 1, 4, 3]]
    assert reading_order(hidden, padding_first=True).tolist() == [[3, 2, 5, 0, 1, 4]]
    place, known = preceding(hidden)
    assert known.tolist() == [[True, True, False, True, True, True]]
    assert take(place, torch.tensor([[0, 1, 4, 5]])).tolist() == [[5, 0, 1, 2]]


def test_pooling_leaves_placeholders_out():
    model, batch = model_of(), batch_of()
    done = model(batch)["lm"]
    for row in range(3):
        torch.testing.assert_close(pool(done, "mean")[row], by_hand(model, batch, row).x[0].mean(0), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"entry": {"splice": {"stream": "image"}}},
            r"entries\.v\.splice: 'image' is not another stream among the inputs",
        ),
        (
            {"entry": {"splice": {"stream": "text", "id": 261}}},
            r"entries\.v\.splice\.id: 261 is none of the 261 ids of 'text'",
        ),
        ({"mask": {"causal": True, "prefix": True}}, r"entries\.v\.splice: does not go with mask\.prefix"),
    ],
)
def test_splices_that_cannot_be(settings, told):
    with pytest.raises(ConfigError, match=told) as caught:
        model_of(**settings)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_a_placeholder_two_splices_and_trunks_above():
    streams = {name: {"kind": "text", "tokenizer": "bytes"} for name in ("a", "b", "c")}

    def built(trunks):
        config = decode(ModelConfig, {"streams": streams, "trunks": trunks})
        return Model(config, {name: stream.build() for name, stream in config.streams.items()})

    lm = {
        "inputs": ["a", "b", "c"],
        "width": 8,
        "depth": 1,
        "index": True,
        "block": {"mixer": {"kind": "attention", "heads": 2}},
    }
    with pytest.raises(ConfigError, match=r"the bytes tokenizer of 'b' has no placeholder: choose one with places"):
        built({"lm": {**lm, "entries": {"a": {"splice": {"stream": "b"}}}}})
    at = {"splice": {"stream": "b", "id": 0}}
    with pytest.raises(ConfigError, match="'a' and 'c' are both spliced in, and a trunk has one splice"):
        built({"lm": {**lm, "entries": {"a": at, "c": at}}})
    with pytest.raises(ConfigError, match="'lm' has a splice, and its tokens cannot be joined again"):
        built({"lm": {**lm, "entries": {"a": at}}, "up": {**lm, "inputs": ["lm"]}})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(4, 4), (7, 3), (1, 5), (9, 9), (1, 1)])
def test_the_stretched_table_is_an_interpolation(size, dtype):
    """Bilinear, corner on corner, for each picture by its own size."""
    scheme = find("position", "stretched").Config(rows=4, columns=5, class_row=True).build(6, 2).to(dtype)
    coords = torch.cartesian_prod(*(torch.arange(side) for side in size))
    padded = torch.cat([coords, coords[:1].repeat(3, 1)])
    other = torch.cartesian_prod(torch.arange(2), torch.arange(2)).repeat(9, 1)[: len(padded)]
    made = scheme.embed(torch.stack([padded, F.pad(other, (0, 0, 0, len(padded) - len(other)))]))
    plane = scheme.table.view(1, 4, 5, 6).movedim(-1, 1)
    wanted = F.interpolate(plane, size, mode="bilinear", align_corners=True)[0].flatten(1).T
    torch.testing.assert_close(made[0, : len(coords)], wanted, atol=1e-6 if dtype == torch.float32 else 1e-12, rtol=0)
    assert torch.equal(scheme.class_row(), scheme.first)
    if len(padded) >= 4:  # a picture of 2 by 2 in the same batch
        corners = scheme.table.view(4, 5, 6)[[0, 0, -1, -1], [0, -1, 0, -1]]
        torch.testing.assert_close(made[1, :4], corners, atol=1e-6, rtol=0)


def test_a_published_token_that_texts_may_say(tmp_path):
    """The special token of one id is a word where a text says it; others stay spelled out; files are as they were."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<s>", "</s>", "<image>"])
    inner.train_from_iterator(["what is in the <i/>? a cat on the mat"] * 3, trainer)
    inner.save(str(tmp_path / "tokenizer.json"))
    text = "what <image> is in <image></s>?"
    made = decode(find("tokenization", "published").Config, {"path": str(tmp_path), "place": 2}).build()
    made.fit([])
    wanted = inner.encode(text.replace("</s>", ""), add_special_tokens=False).ids
    ids = made.encode(text).values.tolist()
    assert made.specials["place"] == 2 and ids.count(2) == 2 and 1 not in ids
    assert ids[: wanted.index(2, wanted.index(2) + 1) + 1] == wanted[: wanted.index(2, wanted.index(2) + 1) + 1]
    assert made.decode(ids) == text
    assert [text[a:b] for a, b in made.spans(text)].count("<image>") == 2
    plain = decode(find("tokenization", "published").Config, {"path": str(tmp_path)}).build()
    plain.fit([])
    assert 2 not in plain.encode(text).values
    made.save(tmp_path / "again")
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "again" / "tokenizer.json")).to_str() == inner.to_str()
    absent = decode(find("tokenization", "published").Config, {"path": str(tmp_path), "place": 900}).build()
    absent.fit([])
    assert "place" not in absent.specials and absent.encode(text).values.tolist() == plain.encode(text).values.tolist()
