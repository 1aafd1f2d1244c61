"""Encoder and decoder over two streams of text with one table: training, drawing, saving, and what is refused."""

from __future__ import annotations

import json
import random

import pytest
import torch

import sevenfold as sf
from sevenfold.assembly.cost.model import model_costs
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, encode

TRUNK = {"width": 32, "depth": 1, "position": {"kind": "relative_bias"}, "block": {"norm": "rms"}}
RECIPE = {
    "streams": {
        "source": {"kind": "text", "ends": False, "length": 16, "projection": {"kind": "embedding", "std": 1.0}},
        "target": {"kind": "text", "begin": 256, "table": "source", "length": 16},
    },
    "trunks": {
        "enc": {**TRUNK, "inputs": ["source"]},
        "dec": {
            **TRUNK,
            "inputs": ["target"],
            "cross_attends": "enc",
            "mask": {"causal": True},
            "position": {"kind": "relative_bias", "bidirectional": False},
        },
    },
    "heads": {"target": {"trunk": "dec", "stream": "target", "projection": "tied", "scale": 32**-0.5}},
    "objective": {"kind": "next_token", "trunk": "dec", "stream": "target"},
}


def pairs(path, count: int = 400) -> str:
    """Lines of one letter, a few times, and the letter after it."""
    draw = random.Random(0)
    words = [draw.choice("abcdef") * draw.randint(1, 9) for _ in range(count)]
    path.write_text("".join(json.dumps({"source": a, "target": chr(ord(a[0]) + 1)}) + "\n" for a in words))
    return str(path)


def config(**streams) -> ModelConfig:
    found = {key: RECIPE[key] for key in ("streams", "trunks", "heads")}
    found["streams"] = {name: {**RECIPE["streams"][name], **streams.get(name, {})} for name in RECIPE["streams"]}
    return decode(ModelConfig, found)


def made(config: ModelConfig) -> Model:
    return Model(config, {name: stream.build() for name, stream in config.streams.items()}).eval()


def test_it_learns_to_answer(tmp_path):
    """What is written depends on what is read, in training, in drawing, and after reading the run again."""
    train = {"steps": 150, "batch": 32, "optimizer": {"kind": "adamw", "lr": 1e-2}, "save_every": 75}
    recipe = {**RECIPE, "data": {"kind": "jsonl", "path": pairs(tmp_path / "pairs.jsonl")}, "train": train}
    run = sf.train(recipe, tmp_path / "run", say=lambda line: None, bar=False)
    assert run.results["held_out"]["nats"] < 0.05 < 1 < run.results["baselines"]["token frequencies (unigram)"]["nats"]
    model = sf.load(run.folder)
    assert model.generate(given={"source": ["aaa", "ffff"]}, stream="target", temperature=0) == ["b", "g"]
    assert model.trunks["dec"].embeds["target"].weight is model.trunks["enc"].embeds["source"].weight


def test_begin_stands_in_front_of_everything():
    assert made(config()).modalities["target"].tokens("ab").values.tolist() == [256, 257, 97, 98, 258]
    model = made(config(target={"ends": False}))
    assert model.modalities["target"].tokens("ab").values.tolist() == [256, 97, 98]
    assert model.modalities["source"].tokens("ab").values.tolist() == [97, 98]
    model.modalities["target"].raw = lambda values, coords: values.tolist()
    drawn = model.generate(["a"], given={"source": "b"}, stream="target", length=1)[0]
    assert drawn[:2] == [256, 97]


def test_a_batch_without_what_is_read_is_read_as_nothing():
    """As a row whose source is all padding."""
    model = made(config())
    batch = model.tokenize([{"source": "abc", "target": "de"}])
    hidden = batch["source"]._replace(valid=torch.zeros(1, 3, dtype=torch.bool))
    alone = model.trunks["dec"]({"target": batch["target"]})
    nothing = model({**batch, "source": hidden})["dec"]
    assert torch.allclose(alone.x, nothing.x, atol=1e-6)
    assert not torch.allclose(alone.x, model(batch)["dec"].x, atol=1e-3)


def test_the_table_is_counted_once():
    model = made(config())
    rows = {row.place: row for row in model_costs(model, {"source": 5, "target": 4})}
    assert rows["enc.embeds.source"].parameters == 260 * 32 and rows["dec.embeds.target"].parameters == 0
    assert sum(row.parameters for row in rows.values()) == sum(p.numel() for p in model.parameters())
    head = rows["heads.target"]
    assert head.backward == 2 * head.flops  # the table's gradient and the vectors'


def test_copies_of_the_whole_model_keep_one_table():
    import copy

    model = copy.deepcopy(made(config()))
    assert model.trunks["dec"].embeds["target"].weight is model.trunks["enc"].embeds["source"].weight
    model.double()
    assert model.trunks["dec"].embeds["target"].weight.dtype == torch.float64
    batch = model.tokenize([{"source": "abc", "target": "de"}])
    whole = torch.compile(lambda batch: model(batch)["dec"].x, fullgraph=True, backend="eager")
    assert torch.allclose(whole(batch), model(batch)["dec"].x)


@pytest.mark.parametrize(
    ("streams", "told"),
    [
        (
            {"target": {"table": "sourse"}},
            "streams.target.table: no earlier trunk reads 'sourse'.*did you mean 'source'",
        ),
        ({"source": {"table": "target"}, "target": {"table": None}}, "streams.source.table: no earlier trunk reads"),
        ({"target": {"tokenizer": {"kind": "characters"}}}, "needs the same ids as 'source'"),
        ({"target": {"projection": "embedding"}}, "take streams.target.projection out"),
    ],
)
def test_what_cannot_be_shared_is_refused(streams, told):
    wrong = config(**streams)
    modalities = {name: stream.build() for name, stream in wrong.streams.items()}
    modalities["target"].fit(["abc"])
    with pytest.raises(ConfigError, match=told) as caught:
        Model(wrong, modalities)
    assert "\n" not in str(caught.value)


def test_another_width_is_refused():
    wrong = config()
    wrong = wrong.replace(trunks={**wrong.trunks, "dec": wrong.trunks["dec"].replace(width=16)}, heads={})
    with pytest.raises(ConfigError, match="the embedding of 'source' has width 32, and this trunk 16"):
        made(wrong)


def test_a_begin_that_is_no_id_is_refused():
    with pytest.raises(ConfigError, match="begin: 300 is none of the 260 ids"):
        made(config(target={"begin": 300})).modalities["target"].tokens("a")


def test_streams_with_one_table_learn_one_tokenizer(tmp_path):
    streams = {name: {**stream, "tokenizer": {"kind": "characters"}} for name, stream in RECIPE["streams"].items()}
    recipe = {
        **RECIPE,
        "streams": {"source": streams["source"], "target": {**streams["target"], "begin": 0}},
        "data": {"kind": "jsonl", "path": pairs(tmp_path / "pairs.jsonl", 60)},
        "train": {"steps": 2, "batch": 4},
    }
    run = sf.train(recipe, tmp_path / "run", say=lambda line: None, bar=False)
    model = sf.load(run.folder)
    source, target = (model.modalities[name].tokenizer for name in ("source", "target"))
    assert source.encode("abcdefg").values.tolist() == target.encode("abcdefg").values.tolist()
    recipe["streams"]["source"] = {**recipe["streams"]["source"], "tokenizer": {"kind": "bytes"}}
    with pytest.raises(ConfigError, match="streams.target.tokenizer: must be that of 'source'"):
        sf.train(recipe, tmp_path / "other", say=lambda line: None, bar=False)


def test_the_scale_of_a_head_is_kept_by_an_initialisation():
    """Maximal update parametrization divides by how much wider the trunk is, and leaves what was asked for."""
    wide = decode(ModelConfig, {**encode(config()), "init": {"kind": "mup", "base_width": 16}})
    assert made(config()).heads["target"].scale == 32**-0.5
    assert made(wide).heads["target"].scale == 32**-0.5 / 2
