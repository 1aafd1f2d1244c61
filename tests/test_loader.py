"""From a source to batches: every sample once an epoch in an order that depends on the seed alone; bad ones counted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from numbered import Numbers, items, samples
from sevenfold.core.errors import DataError
from sevenfold.data.loader import Items, Order, load
from sevenfold.data.windows import Windows, laid
from tiny import made, recipe


def test_every_sample_once_an_epoch_and_the_same_order_for_any_number_of_workers():
    data, orders = items(Numbers(29)), []
    for workers in (0, 1, 2):
        orders.append(samples(load(data, Order(29, 4, 7, 0, 29), workers)))
    assert orders[0] == orders[1] == orders[2]
    epochs = [orders[0][start : start + 29] for start in range(0, 4 * 29, 29)]
    assert all(sorted(epoch) == list(range(29)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert samples(load(data, Order(29, 4, 8, 0, 29), 0)) != orders[0]


@pytest.mark.parametrize("start", [1, 7, 8, 20])
def test_an_order_goes_on_where_it_stopped(start):
    whole = list(Order(29, 4, 7, 0, 29))
    assert list(Order(29, 4, 7, start, 29)) == whole[start:]
    assert len(Order(29, 4, 7, start, 29)) == 29 - start
    assert list(Order(29, 4, 7, 29, 29)) == []
    assert [key for keys in Order(3, 2, 0, 0, 3, shuffle=False) for key in keys] == [
        (e, i) for e in (0, 1) for i in (0, 1, 2)
    ]


def test_random_changes_depend_on_seed_epoch_and_index_alone():
    def drawn(seed, key, views=True):
        draws = []
        source = Numbers(29)
        data = Items(
            source,
            range(29),
            {"text": ("text", lambda raw, g: draws.append(None if g is None else g.random()) or source.encode(raw, g))},
            seed,
            views,
        )
        data[key]
        return draws[0]

    assert drawn(0, (3, 5)) == drawn(0, (3, 5))
    assert len({drawn(0, (3, 5)), drawn(1, (3, 5)), drawn(0, (4, 5)), drawn(0, (3, 6))}) == 4
    assert drawn(0, (3, 5), views=False) is None


def test_views_are_the_same_in_any_worker(tmp_path):
    data = made(recipe("mae", tmp_path)).train
    found = []
    for workers in (0, 2):
        batches = load(data, Order(len(data), 8, 0, 0, 9), workers)
        found.append(torch.cat([batch["image"].values for batch, _, _ in batches]))
    assert torch.equal(*found)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generators_are_left_alone(workers):
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(load(items(Numbers(29)), Order(29, 4, 7, 0, 9), workers))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


# Windows


def cut(some, length, continuous, note=pytest.fail):
    """Windows of items laid end to end in memory."""
    return Windows(laid(some, "text", continuous, note), "text", length, some.seed, some.views)


def brute(documents, length, start):
    """(values, coords, segments) of the window at `start`, token by token."""
    line = [(value, number, place) for number, tokens in enumerate(documents) for place, value in enumerate(tokens)]
    window = line[start : start + length]
    values = [value for value, _, _ in window]
    coords = [min(place, position) for position, (_, _, place) in enumerate(window)]
    for position in range(1, len(window)):
        if window[position][1] == window[position - 1][1]:
            coords[position] = coords[position - 1] + 1
        else:
            coords[position] = 0
    coords[0] = 0
    return values, coords, [number - window[0][1] for _, number, _ in window]


@pytest.mark.parametrize("length", [1, 4, 7, 10, 1000])
@pytest.mark.parametrize("begins", [(0,), (0, 2, 3, 7), tuple(range(12))])
def test_windows_against_a_loop(length, begins):
    lengths = [5, 1, 3, 8, 2, 2, 9, 1, 1, 4, 6, 3]
    source = Numbers(12, begins=begins, lengths=lengths)
    windows = cut(items(source), length, len(begins) == 1)
    pieces = [source.encode(k, None).values.tolist() for k in range(12)]
    documents = []
    for number, piece in enumerate(pieces):
        if number in begins:
            documents.append([])
        documents[-1].extend(piece)
    total = sum(lengths)
    assert len(windows) == total // min(length, total)
    for epoch in range(4):
        seen = Counter()
        for place in range(len(windows)):
            tokens = windows[epoch, place]["text"]
            start = [value for piece in pieces for value in piece].index(tokens.values[0])
            values, coords, segments = brute(documents, min(length, total), start)
            assert tokens.values.tolist() == values
            assert tokens.coords[:, 0].tolist() == coords
            assert (tokens.segments is None and len(begins) == 1) or tokens.segments.tolist() == segments
            seen.update(values)
        line = [value for piece in pieces for value in piece]
        inside = line[min(length, total) : total - min(length, total)]
        assert all(seen[value] >= 1 for value in inside)


def test_windows_differ_from_epoch_to_epoch_in_training_only():
    source = Numbers(50, begins=(0,))
    windows = cut(items(source), 16, True)
    assert len({int(windows[epoch, 2]["text"].values[0]) for epoch in range(8)}) > 3
    still = cut(items(source, views=False), 16, True)
    assert [int(still[epoch, 2]["text"].values[0]) for epoch in range(4)] == [10 * 1000 + 2] * 4
    assert still[0, 0]["text"].segments is None


def test_windows_pass_over_bad_samples():
    noted = []
    windows = cut(items(Numbers(6, broken=(2,), begins=(0,))), 15, False, noted.append)
    assert [error.where for error in noted] == ["numbers.txt:line 3"]
    assert windows[0, 0]["text"].segments.tolist() == [0] * 6 + [1] * 9
    with pytest.raises(DataError, match="no readable sample"):
        cut(items(Numbers(2, broken=(0, 1))), 4, False, noted.append)


def test_pieces_of_one_document_have_no_ends_between_them(tmp_path) -> None:
    """A long text is read in pieces; laid end to end it begins once and ends once."""
    from sevenfold.training.prepare import prepare
    from sevenfold.training.recipe import read_recipe

    path = tmp_path / "long.txt"
    path.write_text("".join(f"line {i} of a long text\n" for i in range(9000)))
    recipe = {
        "data": {"kind": "text", "path": str(path)},
        "streams": {"text": {"kind": "text", "tokenizer": "bytes", "length": 64, "pack": True, "ends": True}},
        "trunks": {"lm": {"inputs": ["text"], "width": 16, "depth": 1, "mask": {"causal": True}}},
        "objective": "next_token",
    }
    ready = prepare(read_recipe(recipe))
    specials = ready.model.modalities["text"].tokenizer.specials
    assert len(ready.train_items) > 2
    values = ready.train.line.read(0, len(ready.train.line))
    assert [(values == specials[name]).sum() for name in ("bos", "eos")] == [1, 1]
    inside = values[(values != specials["bos"]) & (values != specials["eos"])]
    assert bytes(inside.astype("uint8")) == path.read_bytes()[: len(inside)]
