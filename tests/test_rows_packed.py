"""Whole items packed into rows: every item once an epoch, nothing passes between them, losses are those of items by themselves."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch

from sevenfold.blocks.mixing import _documents
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Stream
from sevenfold.data.line import Line
from sevenfold.data.loader import Order, load
from sevenfold.data.packing import Rows, best_fit
from sevenfold.training.fit import fit
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe


def log_normal(count, seed=0, mean=115, longest=512):
    draw = numpy_generator("lengths", seed)
    return np.clip(draw.lognormal(np.log(mean) - 0.32, 0.8, count).round().astype(int), 1, longest)


def line_of(lengths):
    """Documents in which every id tells its document and its place."""
    values = np.concatenate([1000 * number + np.arange(size) for number, size in enumerate(lengths)])
    return Line([values], [len(values)], np.cumsum([0, *lengths[:-1]]))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("length", [7, 40])
def test_best_fit_is_that_of_a_loop(seed, length):
    sizes = numpy_generator("fit", seed).integers(1, length + 1, 60)
    bins: list[list[int]] = []
    for size in sorted(sizes.tolist(), reverse=True):
        fitting = [one for one in bins if sum(one) + size <= length]
        best = max(fitting, key=sum, default=None)
        if best is None:
            bins.append([size])
        else:
            best.append(size)
    found = [list(row) for row, many in best_fit(np.bincount(sizes), length) for _ in range(many)]
    assert sorted(map(sum, found)) == sorted(map(sum, bins))
    assert Counter(size for row in found for size in row) == Counter(sizes.tolist())


def test_rows_are_full():
    for count, least in ((500, 0.97), (20_000, 0.995)):
        rows = Rows(line_of(log_normal(count).tolist()), "text", 512, 0, True)
        assert rows.fill == log_normal(count).sum() / (len(rows) * 512) > least


def test_every_item_stands_in_one_row_of_each_epoch():
    lengths = [*log_normal(200, longest=64, mean=20).tolist(), 200, 64, 65]
    rows = Rows(line_of(lengths), "text", 64, 0, True)
    drawn = []
    for epoch in range(3):
        seen: Counter[int] = Counter()
        for row in range(len(rows)):
            stream = rows.batch([(epoch, row)])[0]["text"]
            item = rows[epoch, row]["text"]
            assert np.array_equal(item.values, stream.values[0][stream.valid[0]].numpy())
            assert np.array_equal(item.coords, stream.coords[0][stream.valid[0]].numpy())
            documents, places = np.divmod(item.values, 1000)
            for number in np.unique(item.segments):
                own = item.segments == number
                assert (
                    len(set(documents[own])) == 1
                )  # one document, in its order, counted from its (or its piece's) start
                assert np.array_equal(places[own], places[own][0] + np.arange(own.sum()))
                assert places[own][0] % 64 == 0 and np.array_equal(item.coords[own, 0], np.arange(own.sum()))
            seen.update(item.values.tolist())
        assert set(seen.values()) == {1} and len(seen) == sum(lengths)
        drawn.append([tuple(rows.holds((epoch, row)).tolist()) for row in range(len(rows))])
    assert len({frozenset(map(frozenset, one)) for one in drawn}) == 3
    still = Rows(line_of(lengths), "text", 64, 0, False)
    assert [still.holds((7, row)).tolist() for row in range(9)] == [still.holds((0, row)).tolist() for row in range(9)]


def test_rows_are_the_same_for_any_workers_and_after_a_stop():
    rows = Rows(line_of(log_normal(100, longest=64, mean=20).tolist()), "text", 64, 5, True)
    steps = 3 * len(rows) // 4
    found = [list(load(rows, Order(len(rows), 4, 5, 0, steps), workers)) for workers in (0, 1, 4)]
    found.append(found[0][:17] + list(load(rows, Order(len(rows), 4, 5, 17, steps), 0)))
    for other in found[1:]:
        for (one, _, _), (two, _, _) in zip(found[0], other, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one["text"][:4], two["text"][:4]))
    assert len({int(v) for b, _, _ in found[0][: len(rows) // 4] for v in b["text"].values.flatten() // 1000}) > 80


# Learning from them
MIXERS = ["attention", "conv", "selective_ssm", "min_gru", "linear_attention", "gated_delta", "hyena", "local_global"]


def some_texts(folder, count=60):
    draw = numpy_generator("texts")
    lines = ["".join(draw.choice(list("abcdef "), size)) for size in log_normal(count, 3, 18, 46).tolist()]
    (folder / "some.jsonl").write_text("".join(json.dumps({"text": f"x{line}"}) + "\n" for line in lines))
    return {"kind": "jsonl", "path": str(folder / "some.jsonl"), "fields": {"text": "text"}}


def recipe(folder, objective="next_token", mixer="attention", pack="whole", **more):
    causal = objective == "next_token"
    return {
        "data": some_texts(folder),
        "streams": {"text": {"kind": "text", "length": 50, "pack": pack}},
        "trunks": {
            "lm": {
                "inputs": ["text"],
                "width": 32,
                "depth": 2,
                "position": "rotary" if mixer in ("attention", "local_global") else "none",
                "mask": {"causal": causal},
                "block": {"mixer": mixer},
            }
        },
        "objective": {"kind": objective},
        "train": {"steps": 4, "batch": 4, "precision": "fp32", **more},
    }


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_document_in_a_row_is_a_document_by_itself(mixer, tmp_path, monkeypatch):
    """Its logits are those that it has alone, whatever stands beside it."""
    monkeypatch.setattr(_documents, "SHORTEST", 1)
    ready = prepare(read_recipe(recipe(tmp_path, mixer=mixer)))
    model = ready.model.eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    stream = ready.train.batch([(0, row) for row in range(len(ready.train))])[0]["text"]

    def logits(given):
        x = model.trunks["lm"]({"text": given}).of("text").x
        return x @ model.trunks["lm"].embeds["text"].weight.T

    with torch.no_grad():
        whole, checked = logits(stream), 0
        for row in range(3):
            for number in stream.segments[row][stream.valid[row]].unique():
                own = (stream.segments[row] == number) & stream.valid[row]
                alone = Stream(stream.values[row][own][None], stream.coords[row][own][None])
                assert torch.allclose(logits(alone)[0], whole[row][own], rtol=1e-4, atol=1e-4)
                changed = stream.values.clone()
                changed[row][own] = torch.where(changed[row][own] == 97, 98, 97)
                moved = (logits(stream._replace(values=changed)) - whole).abs().amax(-1)
                assert not moved[row][~own & stream.valid[row]].any() and moved[row][own].any()
                checked += 1
        assert checked > 4


def test_the_loss_is_that_of_items_by_themselves(tmp_path):
    rows, items = (prepare(read_recipe(recipe(tmp_path, pack=pack))) for pack in ("whole", False))
    assert len(rows.train) < len(items.train) / 2
    found = []
    for ready in (rows, items):
        ready.objective.eval()
        with torch.no_grad():
            losses = [ready.objective(ready.train.batch([(0, place)])[0]) for place in range(len(ready.train))]
        found.append((sum(float(loss.total) for loss in losses), sum(int(loss.count) for loss in losses)))
    assert found[0][1] == found[1][1] == sum(len(items.train[0, k]["text"].values) - 1 for k in range(len(items.train)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)


@pytest.mark.parametrize("objective", ["next_token", "masked_token", "span_corruption"])
def test_objectives_learn_from_rows(objective, tmp_path):
    data = recipe(tmp_path, objective, steps=4)
    if objective == "span_corruption":
        data["streams"] = {
            "source": {"kind": "text", "field": "text", "tokenizer": "sentinels", "length": 50, "pack": "whole"},
            "target": {"kind": "text", "table": "source", "tokenizer": "sentinels"},
        }
        base = data["trunks"].pop("lm")
        data["trunks"] = {
            "enc": {**base, "inputs": ["source"]},
            "dec": {**base, "inputs": ["target"], "cross_attends": "enc", "mask": {"causal": True}},
        }
    ready = prepare(read_recipe(data))
    assert isinstance(ready.train, Rows) and isinstance(ready.held_out, Rows)
    done = fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, bar=False)
    assert all(np.isfinite(record["loss"]) for record in done.log if "loss" in record)
    assert np.isfinite(done.held_out["loss"])


def test_masked_tokens_are_never_padding(tmp_path):
    ready = prepare(read_recipe(recipe(tmp_path, "masked_token")))
    batch, _, _ = ready.train.batch([(0, row) for row in range(8)])
    assert not batch["text"].valid.all()
    loss = ready.objective(batch)
    tokens = int(batch["text"].valid.sum())
    assert 0.1 * tokens < int(loss.count) < 0.2 * tokens
