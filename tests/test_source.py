"""Sources: what holds for all of them. Each format has a file of its own."""

import json
import pickle
import shutil

import numpy as np
import pytest

from sevenfold.core.cell import Cell, Micrograph
from sevenfold.core.errors import DataError
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds
from sevenfold.data.source import content_key
from sources import make

ALL = kinds("source")
OF_FILES = [kind for kind in ALL if find("source", kind).suffixes or kind == "image_folder"]
CLASSES = {"text": str, "label": str, "caption": str, "dna": str, "protein": str, "number": float, "array": np.ndarray}
CLASSES |= {"cells": Cell, "structure": np.ndarray, "molecule": str, "table": dict}
CLASSES |= dict.fromkeys(("audio", "points", "series", "actions"), np.ndarray) | {"microscopy": Micrograph}


@pytest.fixture(params=ALL)
def source(request, tmp_path):
    return find("source", request.param).example(tmp_path).build()


# What holds for every source


def test_has_samples_with_its_fields(source):
    assert len(source) >= 8
    assert source.fields
    for index in range(len(source)):
        sample = source[index]
        assert sample.keys() == source.fields.keys()
        for name, kind in source.fields.items():
            if kind == "image":
                image = sample[name]
                assert image.ndim == 3
                assert image.shape[2] in (1, 3)
                assert image.dtype == np.uint8 or (image.dtype == np.float32 and 0 <= image.min() <= image.max() <= 1)
            else:
                assert isinstance(sample[name], CLASSES[kind])


def test_reads_the_same_again(source):
    again = source.config.build()
    assert [content_key(source[index]) for index in range(len(source))] == [
        content_key(again[index]) for index in reversed(range(len(again)))
    ][::-1]
    assert again.split() == source.split()


def test_splits_into_two_disjoint_whole_sides(source):
    train, held_out = map(list, source.split())
    assert train and held_out
    assert train == sorted(train)
    assert held_out == sorted(held_out)
    assert sorted(train + held_out) == list(range(len(source)))
    assert not {source.key(index) for index in train} & {source.key(index) for index in held_out}


def test_says_where_a_sample_is(source):
    places = [source.where(index) for index in range(len(source))]
    assert len(set(places)) == len(places)
    if source.config.path:
        assert all(str(source.path) in place for place in places)


def test_takes_the_first_samples_only(source):
    few = source.config.replace(limit=5).build()
    assert len(few) == 5
    assert sum(map(len, few.split())) == 5
    same = [content_key(few[index]) == content_key(source[index]) for index in range(5)]
    assert all(same[:3])


def test_travels_to_a_worker_process(source):
    again = pickle.loads(pickle.dumps(source))
    assert content_key(again[3]) == content_key(source[3])


def test_names_the_files_it_reads(source):
    assert all(path.is_file() for path in source.files())
    assert bool(source.files()) == bool(source.config.path or source.ingredients)


@pytest.mark.parametrize("kind", OF_FILES)
def test_needs_a_path_that_is_there_and_not_empty(kind, tmp_path):
    with pytest.raises(DataError, match="needs a file or folder"):
        make(kind)
    with pytest.raises(DataError, match="there is no such file"):
        make(kind, path=str(tmp_path / "nowhere"))
    empty = tmp_path / f"empty{find('source', kind).suffixes[0]}"
    empty.touch()
    with pytest.raises(DataError, match=r"is empty|is one file"):
        make(kind, path=str(empty))
    with pytest.raises(DataError, match=str(tmp_path)) as caught:
        make(kind, path=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_duplicates_stay_on_one_side(tmp_path):
    rows = [json.dumps({"text": f"line {n % 60}", "label": str(n % 7)}) for n in range(240)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    source = make("jsonl", path=str(tmp_path / "a.jsonl"), held_out=0.3)
    train, held_out = source.split()
    assert not {source[index]["text"] for index in train} & {source[index]["text"] for index in held_out}
    assert 0.15 < len(held_out) / 240 < 0.45


@pytest.mark.parametrize("texts", [["a", "b"], ["a", "a"], ["a", "a", "b"], ["a", "b", "c"]])
@pytest.mark.parametrize("share", [0.01, 0.99])
def test_no_side_of_a_tiny_set_is_empty(tmp_path, texts, share):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    train, held_out = make("jsonl", path=str(tmp_path / "a.jsonl"), held_out=share).split()
    assert train and held_out


def test_unreadable_samples_go_to_the_training_side(tmp_path):
    lines = [json.dumps({"text": str(n)}) if n % 10 else "{broken" for n in range(100)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    train, _ = make("jsonl", path=str(tmp_path / "a.jsonl"), held_out=0.9).split()
    assert set(range(0, 100, 10)) <= set(train)


# Digits


def test_digits_are_whole_and_invertible():
    source = make("digits")
    assert len(source) == 1797
    levels = np.rint(np.stack([source[index]["image"] for index in range(1797)]) * (16 / 255))
    assert set(np.unique(levels)) == set(range(17))
    assert source[0]["image"].shape == (8, 8, 1)
    assert {source[index]["label"] for index in range(100)} == set("0123456789")
    assert len({source[index]["caption"] for index in range(1797) if source[index]["label"] == "5"}) == 10
    _, held_out = source.split()
    assert 0.15 < len(held_out) / 1797 < 0.25
    assert {source[index]["label"] for index in held_out} == set("0123456789")


# The whole room


def test_folders_move(tmp_path):
    """A split depends on content, not on where it lies."""
    first = tmp_path / "first"
    first.mkdir()
    config = find("source", "image_folder").example(first)
    split = config.build().split()
    shutil.move(first, tmp_path / "second")
    assert config.replace(path=str(tmp_path / "second")).build().split() == split
