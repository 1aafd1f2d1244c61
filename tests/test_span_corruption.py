"""Span corruption: its law of noise against enumeration, its two texts against merging, its loss against transformers."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from scipy.stats import chisquare
from tokenizers import processors
from transformers import T5Config, T5ForConditionalGeneration, set_seed

import sevenfold as sf
from exchanged import tokenizer
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import find
from sevenfold.core.types import Stream
from sevenfold.data.loader import gather
from sevenfold.objective._spans import noise_mask, numbers
from sevenfold.training.recipe import Recipe
from sevenfold.training.start import going_on
from tiny import made, text_file

EOS, BOS = 258, 257


def recipe(folder: Path, tokenizer="sentinels", **settings) -> dict:
    trunk = {"width": 16, "depth": 1}
    return {
        "data": {"kind": "text", "path": str(folder / "words.txt")},
        "streams": {
            "source": {"kind": "text", "tokenizer": tokenizer, "length": 64},
            "target": {"kind": "text", "tokenizer": tokenizer, "table": "source"},
        },
        "trunks": {
            "enc": {"inputs": ["source"], **trunk},
            "dec": {"inputs": ["target"], "cross_attends": "enc", "mask": {"causal": True}, **trunk},
        },
        "objective": {"kind": "span_corruption", **settings},
        "train": {"steps": 4, "batch": 4, "precision": "fp32"},
    }


@pytest.fixture
def ready(tmp_path):
    text_file(tmp_path)
    return made(recipe(tmp_path))


def spans_of(mask) -> list[tuple[int, int]]:
    """Begin and end of each run of hidden tokens."""
    edges = [i for i in range(len(mask) + 1) if (i < len(mask) and mask[i]) != (i > 0 and mask[i - 1])]
    return list(zip(edges[::2], edges[1::2]))


# The law


@pytest.mark.parametrize(
    ("length", "wanted"),
    [
        (1, (0, 0)),
        (2, (1, 1)),
        (10, (2, 1)),
        (30, (4, 1)),
        (31, (5, 2)),
        (70, (10, 3)),
        (141, (21, 7)),
        (568, (85, 28)),
    ],
)
def test_how_much_is_taken_out(length, wanted):
    """Rounded half to even, as their code does; 568 raw tokens make 512 and 114, 70 make 64 and 14 (with an end on each)."""
    noise, spans = (int(number) for number in numbers(torch.tensor([length]), 0.15, 3.0))
    assert (noise, spans) == wanted


def test_lengths_of_source_and_target():
    for raw, given, asked in ((568, 512, 114), (141, 128, 29), (70, 64, 14)):
        noise, spans = (int(number) for number in numbers(torch.tensor([raw]), 0.15, 3.0))
        assert (raw - noise + spans + 1, noise + spans + 1) == (given, asked)


def compositions(total: int, parts: int) -> list[tuple[int, ...]]:
    cuts = itertools.combinations(range(1, total), parts - 1)
    return [tuple(b - a for a, b in zip((0, *cut), (*cut, total))) for cut in cuts]


@pytest.mark.parametrize(("length", "ratio", "mean"), [(12, 0.5, 2.0), (11, 0.3, 1.0), (9, 0.7, 3.0), (12, 0.15, 3.0)])
def test_every_way_to_cut_is_as_likely(length, ratio, mean):
    """Each pair of compositions of kept and hidden tokens, enumerated, is drawn with the same frequency; no other is drawn."""
    noise = min(max(round(length * ratio), 1), length - 1)
    spans = max(round(noise / mean), 1)
    ways = set()
    for kept, hidden in itertools.product(compositions(length - noise, spans), compositions(noise, spans)):
        ways.add(tuple(bit for k, h in zip(kept, hidden) for bit in [False] * k + [True] * h))
    assert len(ways) == math.comb(length - noise - 1, spans - 1) * math.comb(noise - 1, spans - 1)
    torch.manual_seed(0)
    body = torch.ones(40 * len(ways) + 200, length, dtype=torch.bool)
    drawn = Counter(map(tuple, noise_mask(body, ratio, mean).tolist()))
    assert set(drawn) == ways
    assert len(ways) == 1 or chisquare(list(drawn.values())).pvalue > 1e-3


def test_rows_of_every_length_at_once():
    """Padding behind, ids around: hidden tokens lie within, as many as are wanted, in as many runs, and the last is hidden."""
    torch.manual_seed(0)
    lengths = torch.arange(60).repeat(5)
    place = torch.arange(70)
    body = (place >= 2) & (place < 2 + lengths[:, None])
    noise, spans = numbers(lengths, 0.3, 2.0)
    mask = noise_mask(body, 0.3, 2.0)
    assert not (mask & ~body).any() and torch.equal(mask.sum(1), noise)
    assert [len(spans_of(row)) for row in mask.tolist()] == spans.tolist()
    for row, length in zip(mask.tolist(), lengths.tolist()):
        assert not row[2] and (length < 2 or row[1 + length]), "begins with what stays, and ends with what is hidden"


# The two texts


def merged(source: list[int], target: list[int], sentinels: set[int]) -> list[int]:
    """The text back: each sentinel of the source is what stands behind it in the target."""
    pieces: dict[int, list[int]] = {}
    for id in target:
        if id in sentinels:
            assert id not in pieces, "a sentinel is used twice"
            pieces[id] = []
            last = pieces[id]
        else:
            last.append(id)
    return [id for one in source for id in (pieces.pop(one) if one in sentinels else [one])] + [None] * len(pieces)


def test_ten_thousand_texts_come_back(ready):
    """merge(source, target) is the text; sentinels go down from the last id, in order, in both."""
    objective, sentinels = ready.objective, list(range(359, 259, -1))
    assert objective.sentinels.tolist() == sentinels
    torch.manual_seed(0)
    for lengths in torch.randint(2, 65, (10, 1000)):
        n = int(lengths.max()) + 2
        place = torch.arange(n)
        ids = torch.randint(256, (1000, n))
        ids[:, 0] = BOS
        ids = torch.where(place == lengths[:, None] + 1, EOS, ids)
        stream = Stream(ids, place.expand(1000, -1)[..., None], place < lengths[:, None] + 2)
        made = objective.corrupted(stream, objective.draw({"source": stream})["noise"])
        for row, length in enumerate(lengths.tolist()):
            given, asked = (
                part.values[row, : None if part.valid is None else int(part.valid[row].sum())].tolist()
                for part in made.values()
            )
            assert [given[0], asked[0], given[-1], asked[-1]] == [BOS, BOS, EOS, EOS]
            count = sum(id > 259 for id in given)
            assert [id for id in given if id > 259] == [id for id in asked if id > 259] == sentinels[:count]
            assert merged(given[1:-1], asked[1:-1], set(sentinels)) == ids[row, 1 : 1 + length].tolist()
            assert (len(given), len(asked)) == objective.lengths(length + 2)


def test_items_of_one_token_say_nothing(ready):
    """Nothing can be taken out of them: they are no targets, and change nothing for others."""
    objective = ready.objective.eval()
    ids = torch.tensor([[BOS, 5, EOS, 0, 0, 0], [BOS, 5, 6, 7, 8, EOS]])
    valid = torch.tensor([[True] * 3 + [False] * 3, [True] * 6])
    stream = Stream(ids, torch.arange(6).expand(2, -1)[..., None], valid)
    noise = torch.tensor([[False] * 6, [False] * 3 + [True] * 2 + [False]])
    both = objective({"source": stream}, {"noise": noise})
    alone = objective({"source": stream.rows(slice(1, 2))}, {"noise": noise[1:]})
    assert float(both.count) == float(alone.count) == 4 and float(both.terms["taken/nats"][1]) == 2
    torch.testing.assert_close(both.total, alone.total)
    assert float(objective({"source": stream.rows(slice(0, 1))}).count) == 0


def test_one_stream_is_read_from_the_data(ready):
    """Source is packed in windows, target is made; rows of several documents stand in one source."""
    batch = gather([ready.train[0, place] for place in range(4)])[0]
    assert list(batch) == ["source"] and ready.fields == {"source": "text"}
    assert ready.recipe.streams["source"].pack and not ready.recipe.streams["target"].pack
    assert batch["source"].values.shape == (4, 64) and batch["source"].valid is None
    assert float(ready.objective(batch).count) > 0


# The loss


def t5(folder: Path) -> T5ForConditionalGeneration:
    """A tiny T5 with random weights and a tokenizer whose last ids are sentinels, as published ones have them."""
    shape = {"d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 48, "num_layers": 2, "vocab_size": 320}
    set_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(**shape, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, dropout_rate=0.0)
    )
    model.save_pretrained(folder)
    own = tokenizer(folder, pad_token="<pad>", eos_token="</s>")
    own.add_tokens([f"<extra_id_{number}>" for number in range(29, -1, -1)], special_tokens=True)
    own.backend_tokenizer.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    own.save_pretrained(folder)
    return model.eval()


def test_against_transformers(tmp_path):
    """The loss and its gradient on the two texts that the objective makes are those of T5ForConditionalGeneration, which
    shifts its labels by itself."""
    reference = t5(tmp_path / "t5")
    text_file(tmp_path)
    data = {"kind": "text", "path": str(tmp_path / "words.txt")}
    streams = {"source": {"length": 40}}
    ready = made(
        {"start": str(tmp_path / "t5"), "data": data, "streams": streams, "objective": {"kind": "span_corruption"}}
    )
    objective = ready.objective.eval()
    kind = ready.model.modalities["source"].tokenizer
    first = kind.inner.token_to_id("<extra_id_0>")
    assert list(kind.sentinels) == list(range(first, first - 30, -1)) and first < 320
    batch = gather([ready.train[0, place] for place in range(4)])[0]
    drawn = objective.draw(batch)
    loss = objective(batch, drawn)
    made_ = objective.corrupted(batch["source"], drawn["noise"])
    source, target = made_["source"], made_["target"]
    assert source.values[0, -1] == 1 and target.values[0, 0] == 0 and target.values[0, 1] == first
    assert source.valid is None
    theirs = reference(source.values, labels=target.values[:, 1:].contiguous())
    torch.testing.assert_close(loss.mean, theirs.loss, rtol=0, atol=1e-5)
    theirs.loss.backward()
    loss.mean.backward()
    ours = objective.model.trunks["enc"].embeds["source"].weight.grad
    torch.testing.assert_close(ours, reference.shared.weight.grad, rtol=0, atol=1e-5)


def test_a_published_t5_goes_on_with_plain_text(tmp_path):
    """Begun from a folder, nobody says how: by span corruption, on a file of text, and below the frequencies of tokens."""
    t5(tmp_path / "t5")
    text_file(tmp_path, 3000)
    data = find("source", "text").Config(path=str(tmp_path / "words.txt"))
    plain = going_on(str(tmp_path / "t5"), data)
    assert plain["objective"] == {"kind": "span_corruption"}
    plain["streams"] = {"source": {"length": 48}}
    plain["train"] = {"steps": 40, "batch": 8, "precision": "fp32", "evaluate_batches": 1}
    plain["train"]["optimizer"] = {"kind": "adamw", "lr": 1e-2}
    run = sf.train(plain, out=tmp_path / "run", say=lambda line: None, bar=False)
    assert run.results["held_out"]["nats"] < 0.9 * run.results["baselines"]["token frequencies (unigram)"]["nats"]


def test_it_learns_more_than_frequencies(tmp_path):
    """On a song with a counter in it, 120 steps fill gaps far better than the frequencies of letters."""
    lines = [f"{n} green bottles hanging on the wall, and {n - 1} after one falls.\n" for n in range(400, 0, -1)]
    (tmp_path / "words.txt").write_text("".join(lines))
    plain = recipe(tmp_path)
    for trunk in plain["trunks"].values():
        trunk["width"] = 48
    optimizer = {"kind": "muon", "lr": 1e-2}
    plain["train"] = {"steps": 120, "batch": 16, "precision": "fp32", "evaluate_batches": 2, "optimizer": optimizer}
    run = sf.train(plain, out=tmp_path / "run", say=lambda line: None, bar=False)
    found, simple = run.results["held_out"], run.results["baselines"]["token frequencies (unigram)"]
    assert 2.5 < simple["taken/nats"] < 3.5
    assert found["taken/nats"] < 0.7 * simple["taken/nats"], found
    assert found["nats"] < 0.6 * simple["nats"]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "spans, filled in" in report and "&lt;0&gt;" in report
    again = sf.load(tmp_path / "run")
    assert list(again.modalities["target"].tokenizer.sentinels) == list(range(359, 259, -1))
    assert again.generate(stream="target", given={"source": ["a wall"]}, length=5)


# What is refused


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"objective": {"ratio": 1.0}}, "objective.ratio: Input should be less than 1"),
        ({"objective": {"ratio": 0}}, "objective.ratio: Input should be greater than 0"),
        ({"objective": {"length": 0.5}}, "objective.length"),
        ({"trunks": {"dec": {"mask": {"causal": False}}}}, "needs a causal trunk that reads an encoder"),
        ({"trunks": {"enc": {"mask": {"causal": True}}}}, "set trunks.enc.mask.causal to false"),
        ({"trunks": {"dec": {"cross_attends": None}}}, "set trunks.dec.cross_attends"),
        ({"streams": {"target": {"table": None}}}, "streams.target.table: span_corruption writes"),
        ({"streams": {"target": {"pack": True}}}, "streams.target.pack: it is made of 'source'"),
        ({"streams": {"target": {"ends": False}}}, "streams.target: what is written needs a first token"),
        ({"tokenizer": "bytes"}, "{kind: sentinels, of: {kind: bytes}}"),
        (
            {"tokenizer": {"kind": "sentinels", "count": 2}},
            "items of 64 tokens have 3 spans, and there are 2 sentinels",
        ),
        ({"trunks": {"dec": {"position": {"kind": "learned", "size": 8}}}}, "trunks.dec.position: reaches 8 tokens"),
    ],
)
def test_what_is_refused(tmp_path, changes, wanted):
    text_file(tmp_path)
    plain = recipe(tmp_path, changes.pop("tokenizer", "sentinels"))
    for field, parts in changes.items():
        for name, value in parts.items():
            plain[field][name] = {**plain[field][name], **value} if isinstance(value, dict) else value
    with pytest.raises(ConfigError) as error:
        made(plain)
    assert wanted in str(error.value) and "\n" not in str(error.value)


def test_sentinels_of_any_tokenizer():
    """Behind the ids of the other, and never made from an item."""
    for of, size in (("bytes", 260), ("residue", 33), ({"kind": "kmer", "k": 3}, 5 + 64 + 5)):
        own = find("tokenization", "sentinels").Config.model_validate({"of": of, "count": 7}).build()
        assert own.size == size + 7 and list(own.sentinels) == list(range(size + 6, size - 1, -1))
        assert own.encode("ACDEG" if of == "residue" else "ACGTAC").values.max() < size
        assert own.decode([own.sentinels[0], *own.encode("ACGTAC").values]) == "ACGTAC"
        assert own.piece(own.sentinels[2]) == "<2>"
    with pytest.raises(ConfigError, match="does not make ids in a line"):
        find("tokenization", "sentinels").Config.model_validate({"of": "patch"}).build()


def test_shown_recipe_is_complete(ready):
    """The recipe of a run is decoded as it was written."""
    plain = yaml.safe_load(yaml.safe_dump(part.encode(ready.recipe)))
    assert part.decode(Recipe, plain) == ready.recipe
