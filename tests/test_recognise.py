"""Recognising files, surveying sources, and the ledger of bad samples."""

import json

import numpy as np
import pytest
from PIL import Image

from sevenfold.core.errors import BadSample, DataError
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds
from sevenfold.data.bad import BadSamples
from sevenfold.data.recognise import recognise, survey


@pytest.mark.parametrize(
    "kind", [kind for kind in kinds("source") if find("source", kind).suffixes or kind == "image_folder"]
)
def test_every_example_is_recognised(kind, tmp_path):
    config = find("source", kind).example(tmp_path)
    found = recognise(config.path)
    assert found.kind == kind
    assert found.path == config.path
    assert found.build().fields == config.build().fields


def test_folders_are_recognised(tmp_path):
    texts, images = tmp_path / "texts", tmp_path / "images"
    texts.mkdir()
    images.mkdir()
    for n in range(3):
        (texts / f"{n}.md").write_text("hello\n")
        Image.new("L", (4, 4), n).save(images / f"{n}.png")
        (images / f"{n}.txt").write_text(f"picture {n}")
    (texts / ".hidden").write_bytes(b"\0")
    assert recognise(texts).kind == "text"
    assert recognise(images).kind == "image_folder"


def test_text_and_fasta_are_recognised_by_content(tmp_path):
    (tmp_path / "README").write_text("hello\n")
    (tmp_path / "genome.seq").write_text(">one\nACGT\n")
    assert recognise(tmp_path / "README").kind == "text"
    assert recognise(tmp_path / "genome.seq").kind == "fasta"


def test_what_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "mixed" / "about.txt").write_text("hi")
    (tmp_path / "a.zip").write_bytes(b"PK\3\4\0\0")
    (tmp_path / "a.bin").write_bytes(b"\0\1\2")
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    for name, why in [
        ("nowhere", "there is no such file or folder"),
        ("empty.txt", "is empty"),
        ("folder", "is an empty folder"),
        ("mixed", r"give one of its files, such as table\.csv"),
        ("a.zip", "unpack it"),
        ("a.bin", r"no source reads '\.bin'; read are .*\.csv.*\.fasta.*\.jsonl.*\.png"),
        ("a.png", "give the folder"),
    ]:
        with pytest.raises(DataError, match=why) as caught:
            recognise(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_survey_counts_fields_duplicates_and_bad_samples(tmp_path):
    rows = [json.dumps({"text": f"line {n % 90}"}) for n in range(100)]
    rows[3], rows[70] = "{", "[]"
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    found = survey(recognise(tmp_path / "a.jsonl").build())
    assert found["samples"] == found["train"] + found["held_out"] == 100
    assert found["fields"] == {"text": "text"}
    assert found["duplicates"]["held_out_in_train"] == 0
    assert 5 <= found["duplicates"]["train"] <= 9
    assert found["bad"]["count"] == 2
    assert [where for where, _ in found["bad"]["first"]] == [f"{tmp_path / 'a.jsonl'}:{line}" for line in (4, 71)]
    assert found["notes"] == []


def test_survey_sees_what_a_split_in_the_middle_repeats(tmp_path):
    (tmp_path / "a.txt").write_text("the same line again\n" * 1000)
    source = find("source", "text").Config(path=str(tmp_path / "a.txt"), piece_bytes=100, held_out=0.2).build()
    assert survey(source)["duplicates"]["held_out_in_train"] > 5


@pytest.mark.parametrize("kind", kinds("source"))
def test_every_example_can_be_surveyed(kind, tmp_path):
    found = survey(find("source", kind).example(tmp_path).build())
    assert found["bad"]["count"] == 0
    assert found["kind"] == kind


def test_ledger_counts_each_sample_once():
    bad = BadSamples(0.01, size=1000, listed=3)
    for n in (1, 2, 1, 3, 4):
        bad.note(BadSample(f"file:{n}", "broken"))
    assert len(bad) == 4
    assert [where for where, _ in bad.listed] == ["file:1", "file:2", "file:3"]
    bad.check(99)
    bad.check(400)
    with pytest.raises(DataError, match=r"4 of 399 .*bad_share \(0\.01\).*file:1: broken"):
        bad.check(399)
    bad.check(10_000)


def test_ledger_judges_a_small_set_as_a_whole():
    bad = BadSamples(0.05, size=20)
    bad.note(BadSample("a", "b"))
    bad.check(5)
    bad.check(20)
    bad.note(BadSample("c", "d"))
    with pytest.raises(DataError, match="2 of 20"):
        bad.check(20)
    with pytest.raises(DataError, match="2 of 20"):
        bad.check(5000)
    bad.check(19)
    unknown = BadSamples(0.0)
    unknown.note(BadSample("a", "b"))
    unknown.check(99)
    with pytest.raises(DataError):
        unknown.check(100)


def test_recognition_reads_the_beginning_only(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 4), np.uint8))
    assert recognise(str(tmp_path / "a.npy")).kind == "arrays"
