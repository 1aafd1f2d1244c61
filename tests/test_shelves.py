"""Orders in which row groups are read few at a time, and the files that they lie in as well: each is decoded about once in an epoch."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch

from sevenfold.core.part import find
from sevenfold.core.types import Tokens
from sevenfold.data import remote
from sevenfold.data.arranged import AHEAD, Arranged, Shelves, nobody, together
from sevenfold.data.loader import Items, Order, load
from sevenfold.data.source import parquet

FILES, GROUPS, ROWS = 8, 6, 10
"""Files, row groups of each, rows of each of these."""


def nested(group, files, told=nobody):
    bounds = np.cumsum([0, 4, 3, 0, 7, 5, 2, 6, 4, 8])
    return Shelves(bounds, group, nobody, files=Shelves(np.array([0, 3, 4, 4, 7, 9]), files, told))


def most_at_once(parts, per=None):
    """How many parts are between their first and last item at one time."""
    spans = [(np.flatnonzero(parts == part).min(), np.flatnonzero(parts == part).max()) for part in set(parts)]
    return max(sum(first <= place <= last for first, last in spans) for place in range(len(parts)))


@pytest.mark.parametrize(("group", "files"), [(1, 1), (2, 2), (3, 1)])
def test_each_item_once_few_parts_and_few_files(group, files):
    shelves = nested(group, files).of(range(1, 38))  # one without its first and last samples
    order = Arranged(shelves, 3)
    orders = []
    for epoch in range(3):
        found = [order.epoch(epoch)[place] for place in range(37)]
        assert sorted(found) == list(range(37))
        again = Arranged(shelves, 3).epoch(epoch)
        assert [again[place] for place in (30, 2, 17)] == [found[place] for place in (30, 2, 17)]
        parts = np.searchsorted(shelves.bounds, found, side="right") - 1
        assert most_at_once(parts) <= group
        firsts = np.array(
            sorted(
                {part: place for place, part in reversed(list(enumerate(parts.tolist())))}.items(),
                key=lambda one: one[1],
            )
        )[:, 0]
        assert most_at_once(np.searchsorted(shelves.files.bounds, firsts, side="right") - 1) <= files + group - 1
        orders.append(found)
    assert orders[0] != orders[1] != orders[2]


def test_of_several_sets():
    """As each by itself, the numbers of parts moved on."""
    said = []
    plain = Shelves(np.array([0, 5, 9]), 2, lambda parts: said.append(("plain", list(parts))))
    whole = together([plain, nested(3, 1, lambda parts: said.append(("nested", list(parts))))])
    assert whole.bounds.tolist() == [0, 5, 9, *(9 + nested(3, 1).bounds[1:])] and whole.bounds[-1] == 48
    assert whole.of(range(9)).group == 2 and whole.of(range(9, 48)).group == 3
    own = whole.of(range(9, 48))
    assert own.files.bounds.tolist() == [0, 2, 3, 6, 8] and own.files.group == 1
    Arranged(own, 0).reading([(0, 0)], False)
    Arranged(whole.of(range(9)), 0).reading([(0, 0)], False)
    assert said == [("nested", [1, 3]), ("plain", [1])]


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """A folder of parquet, and what is counted: row groups that were decoded, files that came."""
    pyarrow, written = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "far").mkdir()
    for number in range(FILES):
        some = [{"text": f"row {number * GROUPS * ROWS + n} of some"} for n in range(GROUPS * ROWS)]
        path = tmp_path / "far" / f"p-{number}.parquet"
        written.write_table(pyarrow.Table.from_pylist(some), path, row_group_size=ROWS)
    decoded, came = Counter(), Counter()
    group, fetch = parquet._group, remote.fetch
    monkeypatch.setattr(parquet, "_group", lambda *of: (decoded.update([of[:2]]), group(*of))[1])
    monkeypatch.setattr("sevenfold.data.remote.fetch", lambda where, *more: (came.update([where]), fetch(where, *more)))
    monkeypatch.setattr("sevenfold.data.kept.Kept.ahead", lambda self, names: None)
    monkeypatch.setattr(parquet, "TOGETHER", 1)
    monkeypatch.setenv("SEVENFOLD_DATA", str(tmp_path / "kept"))
    return tmp_path / "far", decoded, came


def encoded(raw, generator):
    values = np.frombuffer(raw.encode().ljust(20), np.uint8).astype(np.int64)
    return Tokens(values, np.arange(20)[:, None])


def read(source, train, start, steps, workers):
    items = Items(source, train, {"text": ("text", encoded)}, 7, True)
    order = Order(len(items), 8, 7, start, steps, arranged=items.arranged)
    return [batch["text"].values for batch, _, _ in load(items, order, workers)]


@pytest.mark.parametrize("far", [False, True])
def test_each_row_group_is_decoded_once_in_an_epoch(far, rows):
    folder, decoded, came = rows
    config = find("source", "parquet").Config(path=f"file://{folder}/p-*.parquet" if far else str(folder), held_out=0.1)
    if far:
        config = config.replace(cache=6 * max(path.stat().st_size for path in folder.iterdir()))
    source = config.build()
    assert source.shelves.group == 3 and (source.shelves.files is not None) == far
    train = source.split()[0]
    decoded.clear()
    came.clear()
    steps = len(train) // 8
    wanted = read(source, train, 0, steps, 0)
    assert FILES * GROUPS - 4 <= decoded.total() <= FILES * GROUPS + 4  # four may be held, from the split
    assert came.total() <= (FILES + 3 if far else 0)
    places = [int(bytes(row.tolist()).split()[1]) for batch in wanted for row in batch.to(torch.uint8)]
    assert len(set(places)) == 8 * steps
    assert len({place // ROWS for place in places[:40]}) >= 4  # mixed, and not one group after the other
    for start, workers in ((steps // 2, 0), (5, 2)):
        found = read(config.build(), train, start, steps, workers)
        assert all(map(torch.equal, found, wanted[start:])) and len(found) == steps - start


def test_what_is_held_out_is_fetched_ahead(rows, monkeypatch):
    folder, _, _ = rows
    largest = max(path.stat().st_size for path in folder.iterdir())
    source = find("source", "parquet").Config(path=f"file://{folder}/p-*.parquet", cache=6 * largest).build()
    asked = []
    monkeypatch.setattr(source._raw, "ahead", partial(asked.append))
    items = Items(source, range(len(source)), {"text": ("text", encoded)}, 0, False)
    items.batch([(0, place) for place in range(8)])
    items.batch([(0, place) for place in range(2 * GROUPS * ROWS, 2 * GROUPS * ROWS + 8)])
    assert [list(numbers) for numbers in asked] == [[1, 2], [3, 4]] and AHEAD == 2
    asked.clear()
    source.split()
    assert [list(numbers) for numbers in asked] == [[1, 2], [2, 3], [3, 4], [4, 5], [5, 6], [6, 7], [7], []]


def test_what_unfolds_to_more_than_was_told_is_not_all_held(tmp_path, monkeypatch):
    pyarrow, written = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(parquet, "TOGETHER", 50_000)
    table = pyarrow.table({"x": [[0] * 500] * 100})  # 40,000 bytes a row group, told as a few hundred
    written.write_table(table, tmp_path / "a.parquet", row_group_size=10)
    source = find("source", "parquet").Config(path=str(tmp_path / "a.parquet")).build()
    held = []
    for index in range(len(source)):
        source[index]
        held.append(len(source._cache))
    assert source._mixed > 10 and max(held) == parquet.FEWEST + 1
