"""Every objective's loss against loops in float64 that say what it means: next_token and masked_token."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from byhand import nats
from sevenfold.core.types import Stream
from sevenfold.data.loader import gather
from tiny import any_to_any, made

CAPTIONS = ["the digit 3", "7", "somebody wrote a two", "a small image of a 5"]


def text_recipe(objective, ends=False, trunk=(), **settings):
    """Captions, one by one, of unequal lengths."""
    causal = {"mask": {"causal": True}} if objective == "next_token" else {}
    return {
        "data": {"kind": "digits", "limit": 40},
        "streams": {"text": {"kind": "text", "field": "caption", "pack": False, "ends": ends}},
        "trunks": {"lm": {"inputs": ["text"], "width": 16, "depth": 1, **causal, **dict(trunk)}},
        "objective": {"kind": objective, **settings},
        "train": {"precision": "fp32"},
    }


def ready_in_float64(data):
    torch.manual_seed(1)
    ready = made(data)
    ready.objective.double()
    return ready


# Next token


def stepwise(ready, batch, row, order, weights=(), smoothing=0.0, segments=None):
    """(sum, count, {stream: (sum, count)}) of one row: each token is predicted by a model that is shown nothing but the
    tokens before it."""
    trunk = ready.model.trunks[ready.objective.trunk]
    total = count = 0.0
    terms = {}
    for number, name in enumerate(order):
        stream = batch[name]
        n = int(stream.valid[row].sum()) if stream.valid is not None else stream.values.shape[1]
        for place in range(n):
            if segments is not None and place and segments[row][place] != segments[row][place - 1]:
                continue
            before = {other: real(batch[other], row) for other in order[:number]}
            before = {other: stream for other, stream in before.items() if stream.values.shape[1]}
            before[name] = real(stream, row, place)
            if place == 0:
                before.pop(name)
            if not before and trunk.tokens is None:
                continue
            if before:
                seen = [other for other in order if other in before]
                last = trunk(before, order=seen).x[0, -1]
            else:
                zero = torch.zeros(1, 1, len(trunk.axes), dtype=torch.long)
                nothing = trunk.extras(1, type(trunk(batch))(trunk.tokens, zero))[0]
                last = trunk.mix(nothing).x[0, -1]
            logits = ready.model.head(ready.objective.head_of[name], last)
            loss = nats(logits, int(stream.values[row, place]), smoothing)
            weight = dict(weights).get(name, 1.0)
            total, count = total + weight * loss, count + weight
            a, b = terms.get(name, (0.0, 0))
            terms[name] = (a + loss, b + 1)
    return total, count, terms


def real(stream, row, stop=None):
    """The valid tokens of one row, as a batch of one."""
    n = stream.values.shape[1] if stream.valid is None else int(stream.valid[row].sum())
    n = n if stop is None else min(stop, n)
    segments = None if stream.segments is None else stream.segments[row : row + 1, :n]
    return Stream(stream.values[row : row + 1, :n], stream.coords[row : row + 1, :n], None, segments)


def compare(loss, rows, rtol=1e-9):
    assert float(loss.total) == pytest.approx(sum(total for total, _, _ in rows), rel=rtol)
    assert float(loss.count) == pytest.approx(sum(count for _, count, _ in rows))


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("trunk", [{}, {"class_token": True}, {"registers": 2, "class_token": True}, {"index": True}])
@torch.no_grad()
def test_next_token_of_padded_text(ends, trunk):
    """Without a start token the first token of a row is no target."""
    ready = ready_in_float64(text_recipe("next_token", ends, trunk))
    batch = ready.model.tokenize(CAPTIONS)
    loss = ready.objective(batch)
    rows = [stepwise(ready, batch, row, ["text"]) for row in range(4)]
    compare(loss, rows)
    lengths = batch["text"].valid.sum(1)
    assert float(loss.count) == int(lengths.sum()) - (0 if trunk.get("class_token") else 4)
    assert float(loss.terms["nats"][0]) == pytest.approx(float(loss.total))


@torch.no_grad()
def test_next_token_with_smoothing_in_training_only():
    ready = ready_in_float64(text_recipe("next_token", smoothing=0.1))
    batch = ready.model.tokenize(CAPTIONS)
    compare(ready.objective(batch), [stepwise(ready, batch, row, ["text"]) for row in range(4)])
    ready.objective.train()
    compare(ready.objective(batch), [stepwise(ready, batch, row, ["text"], smoothing=0.1) for row in range(4)])


@pytest.mark.parametrize("trunk", [{}, {"class_token": True}])
@torch.no_grad()
def test_next_token_in_packed_documents(trunk):
    """The first token of a document is not predicted from the one before it (the class token is of the first)."""
    ready = ready_in_float64(text_recipe("next_token", trunk=trunk))
    values = torch.randint(0, 256, (2, 12))
    segments = torch.tensor([[0] * 5 + [1] * 3 + [2] * 4, [0] * 12])
    coords = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3], list(range(12))])[..., None]
    batch = {"text": Stream(values, coords, None, segments)}
    loss = ready.objective(batch)
    compare(loss, [stepwise(ready, batch, row, ["text"], segments=segments) for row in range(2)])
    assert float(loss.count) == (9 + 11 if not trunk else 10 + 12)
    alone = 0.0
    for start, stop in ((0, 5), (5, 8), (8, 12)):
        piece = Stream(values[:1, start:stop], coords[:1, start:stop])
        if not trunk:
            alone += float(ready.objective({"text": piece}).total)
    if not trunk:
        one = ready.objective({"text": Stream(*(part[:1] if part is not None else None for part in batch["text"]))})
        assert float(one.total) == pytest.approx(alone, rel=1e-9)


@pytest.mark.parametrize("mixer", ["attention", "min_gru", "conv"])
@pytest.mark.parametrize("start", [True, False])
@torch.no_grad()
def test_next_token_of_streams_in_several_orders(mixer, start):
    """Padding between streams, missing streams, weights; what is first in a row needs a start token to be predicted."""
    data = any_to_any({"mixer": mixer}, weights={"image": 0.5}, shares=[0.5, 0.25, 0.25])
    data["trunks"]["mind"]["class_token"] = start
    ready = ready_in_float64(data)
    raws = [dict(sample) for sample in ready.samples(8)]
    raws[1]["caption"] = None
    raws[5]["image"] = None
    batch = ready.model.tokenize(raws)
    assert not batch["caption"].valid.all()
    orders = ready.objective.orders
    drawn = ready.objective.draw(batch)["order"]
    assert drawn.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    loss = ready.objective(batch)
    rows = [stepwise(ready, batch, row, orders[drawn[row]], {"image": 0.5}) for row in range(8)]
    compare(loss, rows)
    for name in ("caption", "image"):
        for term in range(2):
            expected = sum(terms.get(name, (0, 0))[term] for _, _, terms in rows)
            assert float(loss.terms[f"{name}/nats"][term]) == pytest.approx(expected)


def test_orders_follow_their_shares():
    ready = made(any_to_any(shares=[0.5, 0.3, 0.2]))
    batch = gather([ready.train[0, place] for place in range(40)])[0]
    assert torch.bincount(ready.objective.draw(batch)["order"]).tolist() == [20, 12, 8]
    none = made(any_to_any(shares=[1, 0, 0])).objective
    assert none.draw(batch)["order"].sum() == 0


# Masked token


def masked(ratio=0.15, **settings):
    return made(text_recipe("masked_token", ends=True, ratio=ratio, **settings)).objective


@pytest.mark.parametrize("ratio", [0.15, 0.3, 0.01, 0.5])
@pytest.mark.parametrize("masker", ["random", {"kind": "span", "length": 3}])
def test_exactly_the_share_of_tokens_is_hidden(ratio, masker):
    objective = masked(ratio, masker=masker)
    values = torch.randint(0, 256, (300, 400))
    lengths = torch.arange(300) + 2
    values[:, 0] = 257
    values[torch.arange(300), lengths - 1] = 258
    valid = torch.arange(400)[None] < lengths[:, None]
    chosen = objective.choose(Stream(values, torch.zeros(300, 400, 1), valid))
    assert chosen.sum(1).tolist() == [0 if n == 2 else max(1, round(ratio * (n - 2))) for n in lengths.tolist()]
    assert not (chosen & (~valid | (values > 255))).any()


def test_spans_are_runs():
    """Runs of 4 places from a random place on, whole but for one of each row and those at its ends."""
    stream = Stream(torch.zeros(200, 64, dtype=torch.long), torch.zeros(200, 64, 1))
    chosen = masked(0.3, masker={"kind": "span", "length": 4}).choose(stream)
    shifts = []
    for row in chosen:
        fits = []
        for shift in range(4):
            runs = row[shift : shift + 4 * ((64 - shift) // 4)].view(-1, 4)
            fits.append(int((runs.any(-1) & ~runs.all(-1)).sum()))
        assert min(fits) <= 1
        shifts.append(fits.index(min(fits)))
    assert set(shifts) == {0, 1, 2, 3}
    assert int(chosen.sum(0).min()) > 30


def test_hidden_places_are_uniform():
    chosen = masked(0.15).choose(Stream(torch.zeros(5000, 20, dtype=torch.long), torch.zeros(5000, 20, 1)))
    assert chisquare(chosen.sum(0).numpy()).pvalue > 1e-4


def test_what_hidden_tokens_become():
    """80 % mask, 10 % any id, 10 % themselves: chi-square over 1e5 places; the others stay."""
    objective = masked()
    stream = Stream(torch.full((1000, 200), 65), torch.zeros(1000, 200, 1))
    chosen = torch.zeros(1000, 200, dtype=torch.bool)
    chosen[:, ::2] = True
    torch.manual_seed(3)
    seen = objective.corrupt(stream, chosen).values
    assert (seen[~chosen] == 65).all()
    counts = torch.bincount(seen[chosen], minlength=260).double().numpy()
    expected = np.full(260, 0.1 / 260)
    expected[objective.mask_id] += 0.8
    expected[65] += 0.1
    assert chisquare(counts, expected * 1e5).pvalue > 1e-4


@torch.no_grad()
def test_masked_token_against_a_loop():
    ready = ready_in_float64(text_recipe("masked_token", ends=True, ratio=0.4))
    batch = ready.model.tokenize(CAPTIONS)
    drawn = ready.objective.draw(batch)
    loss = ready.objective(batch, drawn)
    total, count, right = 0.0, 0, 0
    for row in range(4):
        n = int(batch["text"].valid[row].sum())
        alone = Stream(drawn["seen"][row : row + 1, :n], batch["text"].coords[row : row + 1, :n])
        hidden = ready.model.trunks["lm"]({"text": alone}).x[0]
        for place in range(n):
            if drawn["chosen"][row, place]:
                logits, target = ready.model.head("text", hidden[place]), int(batch["text"].values[row, place])
                total, count = total + nats(logits, target), count + 1
                right += int(logits.argmax()) == target
    assert float(loss.total) == pytest.approx(total, rel=1e-9)
    assert int(loss.count) == count and int(loss.terms["accuracy"][0]) == right


def test_only_hidden_places_get_a_gradient():
    ready = ready_in_float64(text_recipe("masked_token", ratio=0.4))
    batch, seen = ready.model.tokenize(CAPTIONS), []
    drawn = ready.objective.draw(batch)
    ready.model.trunks["lm"].norm.register_full_backward_hook(lambda module, ins, outs: seen.append(outs[0]))
    ready.objective(batch, drawn).total.backward()
    assert ((seen[0].abs().sum(-1) > 0) == drawn["chosen"]).all()


def test_drawing_goes_on_from_held_out_beginnings_where_there_is_no_start():
    sample = [{"text": "somebody wrote a two, and then a three, and then a four, and then a five"}]
    exhibit = made(text_recipe("next_token")).objective.exhibits(sample)[0]
    assert exhibit.columns == ["beginning", "drawn", "how it really goes on"]
    (_, begin), (_, drawn), (_, rest) = exhibit.rows[0]
    assert begin + rest == sample[0]["text"] and drawn and not drawn.startswith(begin)
    assert made(text_recipe("next_token", ends=True)).objective.exhibits(sample)[0].columns == ["drawn"]


@torch.no_grad()
@pytest.mark.parametrize(("mask", "random"), [(0.8, 0.1), (1.0, 0.0), (0.7, 0.0), (0.5, 0.5)])
def test_the_baseline_of_masked_token_knows_what_is_left_at_a_hidden_place(mask, random):
    ready = made(text_recipe("masked_token", mask=mask, random=random))
    train, held_out = ready.model.tokenize(CAPTIONS), ready.model.tokenize(["the digit 7", "a two"])
    size, stays = ready.objective.size, 1 - mask - random
    p = np.ones(size)
    np.add.at(p, train["text"].values[train["text"].valid].numpy(), 1)
    p /= p.sum()
    total, targets = 0.0, held_out["text"].values[held_out["text"].valid].tolist()
    for was in targets:
        total -= mask * math.log(p[was])
        for seen in range(size):
            chance = random / size + stays * (seen == was)
            if chance > 1e-12:
                total -= chance * math.log(p[was] * chance / (random / size + stays * p[seen]))
    found = ready.objective.baselines([train], [held_out])["token frequencies (unigram)"]["nats"]
    assert found == pytest.approx(total / len(targets), rel=1e-9)


def test_filled_in_tokens_are_shown_without_padding_and_ends():
    sample = [{"text": text} for text in CAPTIONS]
    rows = made(text_recipe("masked_token", ends=True)).objective.exhibits(sample)[0].rows
    assert [len(seen) for (_, seen), *_ in rows] == [len(text) for text in CAPTIONS]
