"""Texts, JSON lines and FASTA: files that people really have, and bad ones."""

import gzip
import json

import numpy as np
import pytest

from sevenfold.core.errors import BadSample, DataError
from sources import errors_of, make

# Text


def test_text_is_cut_at_line_ends_and_joined_again(tmp_path):
    text = "".join(f"line {n} – ü\n" for n in range(20_000))
    (tmp_path / "book.txt").write_text(text, encoding="utf-8")
    source = make("text", path=str(tmp_path / "book.txt"), held_out=0.1)
    samples = [source[index]["text"] for index in range(len(source))]
    assert "".join(samples) == text
    assert all(sample.endswith("\n") and len(sample.encode()) <= 1 << 16 for sample in samples)
    train, held_out = source.split()
    assert held_out == list(range(len(train), len(source)))
    assert abs(sum(len(samples[index]) for index in held_out) / len(text) - 0.1) < 0.001
    assert source.continuous
    assert [source.follows(index) for index in range(3)] == [False, True, True]


@pytest.mark.parametrize("text", ["é" * 5000, "word " * 900, "漢" * 700 + "\n" + "字" * 700, "é", "ab", "漢\n"])
def test_text_without_line_ends_is_cut_between_characters(tmp_path, text):
    (tmp_path / "line.txt").write_text(text, encoding="utf-8")
    source = make("text", path=str(tmp_path / "line.txt"), piece_bytes=101)
    assert "".join(source[index]["text"] for index in range(len(source))) == text
    train, held_out = source.split()
    assert train
    assert held_out or len(text) < 3


def test_folder_of_few_texts_holds_out_its_end(tmp_path):
    for n in range(12):
        (tmp_path / f"{n}.txt").write_text(f"chapter {n}\n" * 20)
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "other.bin").write_bytes(b"\0\1")
    source = make("text", path=str(tmp_path), held_out=0.25)
    text = "".join(source[index]["text"] for index in range(len(source)))
    assert text == "".join(f"chapter {n}\n" * 20 for n in range(12))
    train, held_out = source.split()
    end = "".join(source[index]["text"] for index in held_out)
    assert text.endswith(end)
    assert 0.25 <= len(end) / len(text) < 0.26
    assert [index for index in range(len(source)) if source.follows(index)] == [10]
    assert held_out[0] == 10
    assert not source.continuous


def test_folder_of_many_texts_holds_out_whole_ones(tmp_path):
    for n in range(80):
        (tmp_path / f"{n}.txt").write_text(f"chapter {n % 70}\n" * (300 if 20 <= n < 23 else 20))
    source = make("text", path=str(tmp_path), held_out=0.3, piece_bytes=1024)
    train, held_out = source.split()
    names = [{source[index]["text"].split("\n")[0] for index in side} for side in (train, held_out)]
    assert not names[0] & names[1]
    assert 10 < len(held_out) < 45
    assert source.follows(22)


def test_text_may_be_packed_and_have_a_mark(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfhello\nyou\n"))
    source = make("text", path=str(tmp_path / "a.txt.gz"))
    assert source[0]["text"] == "hello\n"


def test_what_is_not_text_is_refused(tmp_path):
    for name, data, why in [
        ("nul.txt", b"ab\0\1\2" * 9, "NUL byte at offset 2"),
        ("wide.txt", "hello".encode("utf-16"), "UTF-16"),
        ("noise.txt", bytes(range(128, 256)) * 9, "not UTF-8"),
    ]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=why):
            make("text", path=str(tmp_path / name))


def test_one_bad_piece_of_text_is_one_bad_sample(tmp_path):
    data = bytearray(b"a line of text\n" * 1000)
    data[7000] = 0xE9
    (tmp_path / "a.txt").write_bytes(data)
    source = make("text", path=str(tmp_path / "a.txt"), piece_bytes=1000)
    bad = errors_of(source.config)
    assert [error.where for error in bad] == [f"{tmp_path / 'a.txt'}:byte 7000"]
    assert "0xe9" in bad[0].why


def test_packed_bombs_and_damaged_packs_are_refused(tmp_path):
    bomb = tmp_path / "bomb.txt.gz"
    with gzip.open(bomb, "wb") as file:
        for _ in range(80):
            file.write(b"a" * (1 << 20))
    with pytest.raises(DataError, match="are allowed"):
        make("text", path=str(bomb))
    with pytest.raises(DataError, match="are allowed"):
        make("text", path=str(bomb), largest_bytes=1000)
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"hello" * 100)[:-9])
    with pytest.raises(DataError, match="damaged"):
        make("text", path=str(tmp_path / "cut.txt.gz"))
    (tmp_path / "not.txt.gz").write_bytes(b"hello")
    with pytest.raises(DataError, match="damaged"):
        make("text", path=str(tmp_path / "not.txt.gz"))


# JSON lines


def test_json_lines_tell_their_fields(tmp_path):
    rows = [
        {
            "text": f"sentence {n}",
            "kind": ["good", "bad"][n % 2],
            "sure": n / 9,
            "gene": "ACGTTGCATGCAGTCAN" * 2,
            "chain": "MKTAYIAKQRQISFVKSHFSR",
            "vector": [n, 2.5],
            "lines": ["one", str(n)],
            "spam": n % 2 == 0,
            "meta": {"id": n},
            "seldom": None if n else 3,
        }
        for n in range(40)
    ]
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress("\n\n".join(map(json.dumps, rows)).encode()))
    source = make("jsonl", path=str(tmp_path / "a.ndjson.gz"))
    assert source.fields == {
        "text": "text",
        "kind": "label",
        "sure": "number",
        "gene": "dna",
        "chain": "protein",
        "vector": "array",
        "lines": "text",
        "spam": "label",
    }
    sample = source[2]
    assert sample["lines"] == "one\n2"
    assert sample["spam"] == "True"
    assert sample["vector"].tolist() == [2, 2.5]
    assert source.where(2).endswith("a.ndjson.gz:5")
    assert any("'meta'" in note for note in source.notes)
    assert any("'seldom'" in note and "39 of the first 40" in note for note in source.notes)


def test_json_fields_can_be_chosen(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": "hi", "stars": n % 5}) + "\n" for n in range(9)))
    source = make("jsonl", path=str(tmp_path / "a.jsonl"), fields={"stars": "label"})
    assert source[6] == {"stars": "1"}
    with pytest.raises(DataError, match="no column 'star'; did you mean 'stars'"):
        make("jsonl", path=str(tmp_path / "a.jsonl"), fields={"star": "label"})
    with pytest.raises(DataError, match="cannot be read as 'lable'; did you mean 'label'"):
        make("jsonl", path=str(tmp_path / "a.jsonl"), fields={"stars": "lable"})


def test_broken_json_lines_are_bad_samples(tmp_path):
    bad = [
        '{"text": "b", "n": 1',
        "[1]",
        '{"n": 2}',
        '{"text": "c", "n": "x"}',
        '{"text": "\\ud800", "n": 1}',
        "[" * 9999,
    ]
    bad += ['{"text": "d", "n": NaN}', '{"text": "e", "n": ' + "9" * 5000 + "}"]
    good = [json.dumps({"text": f"t{n}", "n": n}) for n in range(400)]
    (tmp_path / "a.jsonl").write_text("\n".join(good + bad))
    source = make("jsonl", path=str(tmp_path / "a.jsonl"))
    for number, why in enumerate(
        ["not JSON", "not a JSON object", "no 'text'", "not a number", "surrogate", "not JSON"]
    ):
        with pytest.raises(BadSample, match=why) as caught:
            source[400 + number]
        assert caught.value.where == f"{tmp_path / 'a.jsonl'}:{401 + number}"
    for index in (406, 407):
        with pytest.raises(BadSample):
            source[index]


def test_what_is_not_json_lines_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('[\n{"a": 1}\n]')
    assert len(make("jsonl", path=str(tmp_path / "a.jsonl"))) == 3
    (tmp_path / "a.jsonl").write_text('[{"a": 1}, {"a": 2}]')
    with pytest.raises(DataError, match="is one JSON array: write one object per line"):
        make("jsonl", path=str(tmp_path / "a.jsonl"))
    (tmp_path / "a.jsonl").write_text("hello\nyou\n")
    with pytest.raises(DataError, match="holds no JSON object"):
        make("jsonl", path=str(tmp_path / "a.jsonl"))


# FASTA


def test_fasta_tells_dna_from_protein(tmp_path):
    (tmp_path / "a.fa").write_text(";old comment\n>one first\nACGT\nacgtn\n\n>two\r\nGGRU\r\n>three\nACGGTTGA\n")
    source = make("fasta", path=str(tmp_path / "a.fa"))
    assert source.fields == {"dna": "dna"}
    assert [source[index]["dna"] for index in range(3)] == ["ACGTACGTN", "GGRT", "ACGGTTGA"]
    assert source.where(1) == f"{tmp_path / 'a.fa'}:6: record 'two' offset 0"
    (tmp_path / "b.faa.gz").write_bytes(gzip.compress(b">p\nMKTAYIAKQRQISFVK*\n>q\nACACACAGGT\n"))
    source = make("fasta", path=str(tmp_path / "b.faa.gz"))
    assert source.fields == {"protein": "protein"}
    assert source[0]["protein"] == "MKTAYIAKQRQISFVK*"
    (tmp_path / "c.fa").write_text(">p\nACCAGGATTA\n>q\nACACACAGGT\n")
    assert make("fasta", path=str(tmp_path / "c.fa"), alphabet="protein").fields == {"protein": "protein"}


def test_genome_is_cut_and_its_end_held_out(tmp_path):
    genome = "".join(np.random.default_rng(0).choice(list("ACGT"), 300_000))
    (tmp_path / "a.fna").write_text(
        ">chr\n" + "\n".join(genome[at : at + 80] for at in range(0, 300_000, 80)) + "\n>p\nACGT\n"
    )
    source = make("fasta", path=str(tmp_path / "a.fna"), held_out=0.1)
    train, held_out = source.split()
    assert "".join(source[index]["dna"] for index in range(len(source))) == genome + "ACGT"
    assert sum(len(source[index]["dna"]) for index in held_out) == pytest.approx(30_000, abs=5)
    assert held_out == list(range(len(train), len(source)))
    assert not source.continuous
    assert [source.follows(index) for index in (0, 1, len(source) - 1)] == [False, True, False]
    assert make("fasta", path=str(tmp_path / "a.fna"), piece_letters=400_000, limit=1).continuous is False


def test_letters_outside_the_alphabet_are_bad_samples(tmp_path):
    (tmp_path / "a.fa").write_text(
        ">one\n" + "ACGTACGTAC" * 20 + "\n>two\n" + "ACGT" * 20 + "\nAC!T\n>three\n\n>four\nAC\n"
    )
    source = make("fasta", path=str(tmp_path / "a.fa"))
    with pytest.raises(BadSample, match="'!' is no letter of DNA") as caught:
        source[1]
    assert caught.value.where == f"{tmp_path / 'a.fa'}:3: record 'two' offset 82"
    with pytest.raises(BadSample, match="no sequence"):
        source[2]
    assert source[3] == {"dna": "AC"}


def test_file_without_records_is_no_fasta(tmp_path):
    for text in ("ACGTACGT\n", "hello\n>one\nACGT\n"):
        (tmp_path / "a.fa").write_text(text)
        with pytest.raises(DataError, match="does not begin with a FASTA record"):
            make("fasta", path=str(tmp_path / "a.fa"))
    (tmp_path / "a.fa").write_text(">one\n123 456\n")
    with pytest.raises(DataError, match="neither DNA nor protein"):
        make("fasta", path=str(tmp_path / "a.fa"))
