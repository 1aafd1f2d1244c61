"""A field that says which part a sample is of."""

from __future__ import annotations

import pytest

from sevenfold.core.errors import DataError
from sevenfold.core.part import find
from sevenfold.data.recognise import recognise

ROWS = [("a b", "train"), ("c d", "Test"), ("e f", "train"), ("g h", "valid"), ("i j", "train"), ("k l", "train")]


def source(folder, rows, **settings):
    (folder / "t.csv").write_text("text,part\n" + "".join(f"{text},{part}\n" for text, part in rows))
    return find("source", "csv").Config(path=str(folder / "t.csv"), split="part", **settings).build()


def test_the_field_decides(tmp_path):
    found = source(tmp_path, ROWS)
    assert found.split() == ([0, 2, 4, 5], [3])
    assert found.test() == [1]


def test_without_held_out_samples_some_are_chosen_and_none_of_the_test(tmp_path):
    found = source(tmp_path, [row for row in ROWS if row[1] != "valid"])
    train, held_out = found.split()
    assert sorted([*train, *held_out]) == [0, 2, 3, 4]
    assert held_out
    assert found.test() == [1]


@pytest.mark.parametrize(
    ("rows", "settings", "told"),
    [
        ([("a b", "train"), ("c d", "later")], {}, "t.csv:3 is of part 'later', not train, valid or test"),
        ([("a b", "test"), ("c d", "valid")], {}, "no sample of .* is of the part train"),
        (ROWS, {"split": "prat"}, "has no field 'prat'; did you mean 'part'"),
    ],
)
def test_what_it_cannot_mean(tmp_path, rows, settings, told):
    made = source(tmp_path, rows)
    made.config = made.config.replace(**settings)
    with pytest.raises(DataError, match=told):
        made.split()


def test_without_a_field_there_is_no_test_part(tmp_path):
    made = source(tmp_path, ROWS)
    made.config = made.config.replace(split=None)
    train, held_out = made.split()
    assert sorted([*train, *held_out]) == list(range(6))
    assert made.test() == []


@pytest.mark.parametrize(
    ("name", "parts", "found"),
    [
        ("split", ["train", "Test", "valid", "train"], "split"),
        ("split", ["train", "later", "test", "train"], None),
        ("split", ["test", "test", "valid", "test"], None),
        ("part", ["train", "test", "valid", "train"], None),
    ],
)
def test_a_field_of_that_name_is_taken_for_it(tmp_path, name, parts, found):
    lines = [f"words {place},{part}" for place, part in enumerate(parts)]
    (tmp_path / "t.csv").write_text("\n".join([f"text,{name}", *lines]) + "\n")
    assert recognise(tmp_path / "t.csv").split == found
