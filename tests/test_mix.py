"""Mixtures: shares as asked, every item equally often, exact after a stop; held-out samples each once."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch

from numbered import Numbers, items
from sevenfold.core import part
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.part import find
from sevenfold.data.loader import Order, load
from sevenfold.data.mixed import Mixed, rounded, shares_of
from sevenfold.data.packing import Rows
from sevenfold.data.source import Source
from sevenfold.data.windows import Windows
from sevenfold.training.fit import fit
from sevenfold.training.prepare import prepare
from sevenfold.training.prepare_data import prepare_data
from sevenfold.training.recipe import read_recipe
from tiny import TIMES


def test_shares_with_a_temperature():
    weights = [1.0, 10.0, 100.0]
    assert shares_of(weights, 1.0) == pytest.approx([w / 111 for w in weights])
    roots = [w ** (1 / 2.5) for w in weights]
    assert shares_of(weights, 2.5) == pytest.approx([root / sum(roots) for root in roots])
    assert shares_of(weights, 1e6) == pytest.approx([1 / 3] * 3, abs=1e-4)
    assert shares_of([1e-300, 1e300], 1.0) == pytest.approx([0, 1])


@pytest.mark.parametrize("seed", range(4))
def test_rounding_keeps_the_sum(seed):
    shares = np.random.default_rng(seed).dirichlet(np.full(5, 3.0))
    counts = rounded(shares, 997)
    assert sum(counts) == 997 and max(abs(count - share * 997) for count, share in zip(counts, shares)) < 1


def mixture(shares=(0.5, 0.3, 0.2), sizes=(10, 40, 50), views=True):
    sets = {str(size): items(Numbers(size), seed=size) for size in sizes}
    return Mixed(sets, shares, 3, views)


def test_shares_of_each_epoch_and_every_item_equally_often():
    data = mixture()
    assert len(data) == 100 and data.counts == {"10": 50, "40": 30, "50": 20}
    assert data.passes == {"10": 5.0, "40": 0.75, "50": 0.4}
    seen: Counter[tuple[int, int]] = Counter()
    for epoch in range(20):
        places = [data.place((epoch, place)) for place in range(100)]
        assert Counter(number for number, _ in places) == {0: 50, 1: 30, 2: 20}
        seen.update((number, own[1]) for number, own in places)
    assert {count for (number, _), count in seen.items() if number == 0} == {100}
    assert {count for (number, _), count in seen.items() if number == 1} == {15}
    assert {count for (number, _), count in seen.items() if number == 2} == {8}
    still = mixture(views=False)
    assert [still.place((4, place)) for place in (0, 9, 10, 99)] == [
        (0, (4, 0)),
        (0, (4, 9)),
        (1, (4, 0)),
        (2, (4, 49)),
    ]


def test_the_same_for_any_workers_and_after_a_stop():
    found = [list(load(mixture(), Order(100, 8, 3, 0, 30), workers)) for workers in (0, 1, 4)]
    found.append(found[0][:11] + list(load(mixture(), Order(100, 8, 3, 11, 30), 0)))
    for other in found[1:]:
        assert all(torch.equal(a[0]["text"].values, b[0]["text"].values) for a, b in zip(found[0], other, strict=True))


def written(folder, name, letter, count):
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"text": f"{letter * (3 + k % 7)}{k}"}) + "\n" for k in range(count)))
    return {"kind": "jsonl", "path": str(path), "fields": {"text": "text"}}


def recipe(sources, pack=True, **more):
    return {
        "data": {"kind": "mix", "sources": sources, **more},
        "streams": {"text": {"length": 24, "pack": pack}},
        "trunks": {"lm": {"inputs": ["text"], "width": 16, "depth": 1, "mask": {"causal": True}}},
        "objective": "next_token",
        "train": {"steps": 6, "batch": 4, "precision": "fp32"},
    }


@pytest.mark.parametrize("pack", [True, "whole", False])
def test_raw_sources_and_shards_side_by_side(pack, tmp_path):
    one, other = written(tmp_path, "one", "a", 60), written(tmp_path, "other", "b", 300)
    like = prepare_data(one, tmp_path / "one_tokens", overrides=["stream.tokenizer=bytes"], say=lambda _: None)
    prepare_data(other, tmp_path / "other_tokens", like=like, say=lambda _: None)
    shards = {"kind": "shards", "path": str(tmp_path / "other_tokens")}
    logs, told = [], []
    for given in (other, shards):
        sources = {"one": {"source": one, "weight": 3}, "other": {"source": given, "weight": 1}}
        data = recipe(sources, pack)
        if given is other:
            data["streams"]["text"] |= {"kind": "text", "tokenizer": "bytes"}
        ready = prepare(read_recipe(data), note=told.append)
        counts = Counter(chr(int(v)) for k in range(len(ready.train)) for v in ready.train[0, k]["text"].values)
        assert 1.8 < counts["a"] / counts["b"] < 4.5
        kind = {True: Windows, "whole": Rows}.get(pack)
        assert kind is None or all(isinstance(one, kind) for one in (*ready.train.sets, *ready.held_out.sets))
        held = Counter(v for k in range(len(ready.held_out)) for v in ready.held_out[0, k]["text"].values.tolist())
        assert held[97] and held[98]
        done = fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, bar=False)
        logs.append([{k: v for k, v in record.items() if k not in TIMES} for record in done.log])
    assert logs[0] == logs[1]
    assert [line for line in told if line.startswith("mix: one:")][0].endswith("times")


def test_what_cannot_be_mixed(tmp_path):
    one, other = written(tmp_path, "one", "a", 60), written(tmp_path, "other", "b", 60)
    for name, source, kind in (("x", one, "bytes"), ("y", other, "characters")):
        prepare_data(source, tmp_path / name, overrides=[f"stream.tokenizer={kind}"], say=lambda _: None)
    sources = {name: {"source": {"kind": "shards", "path": str(tmp_path / name)}} for name in ("x", "y")}
    with pytest.raises(DataError, match="data.sources.y: its tokens are of another tokenizer.*--like"):
        prepare(read_recipe(recipe(sources)))
    with pytest.raises(ConfigError, match="inner is a mixture itself"):
        read_recipe(recipe({"inner": {"source": {"kind": "mix", "sources": sources}}}))
    with pytest.raises(DataError, match="names its sources"):
        find("source", "mix").Config().build()
    (tmp_path / "c.csv").write_text("text\n" + "".join(f"{k}.5\n" for k in range(60)))
    csv = {"kind": "csv", "path": str(tmp_path / "c.csv")}
    with pytest.raises(DataError, match="data.sources.csv: its field 'text' is number, and text in another"):
        find("source", "mix").Config(sources={"a": {"source": one}, "csv": {"source": csv}}).build()


def test_what_a_mixture_is_not_asked(tmp_path):
    """Weights of some only, whose unit would be another; settings that are each source's own."""
    one = {"kind": "digits"}
    with pytest.raises(ConfigError, match="some have a weight"):
        part.decode(
            Source.Config, {"kind": "mix", "sources": {"a": {"source": one, "weight": 3}, "b": {"source": one}}}
        )
    for field, value in (("held_out", 0.5), ("partly", ["label"])):
        mixture = {"kind": "mix", "sources": {"a": {"source": one}}, field: value}
        with pytest.raises(DataError, match=f"data.{field}: each source"):
            part.decode(Source.Config, mixture).build()
