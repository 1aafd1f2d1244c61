"""Sources: what holds for all of them, then each format with the files that people really have, and bad ones."""

import csv as csv_format
import gzip
import io
import json
import pickle
import shutil
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from sevenfold.core.cell import Cell, Micrograph
from sevenfold.core.errors import BadSample, DataError, MissingExtra
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds
from sevenfold.data.source import Source, content_key

ALL = kinds("source")
OF_FILES = [kind for kind in ALL if find("source", kind).suffixes or kind == "image_folder"]
CLASSES = {"text": str, "label": str, "caption": str, "dna": str, "protein": str, "number": float, "array": np.ndarray}
CLASSES |= {"cells": Cell, "structure": np.ndarray, "molecule": str, "table": dict}
CLASSES |= dict.fromkeys(("audio", "points", "series", "actions"), np.ndarray) | {"microscopy": Micrograph}


def make(kind, **config) -> Source:
    return find("source", kind).Config(**config).build()


def errors_of(config) -> list:
    """Our errors in building, splitting and reading a source; others are raised."""
    found = []
    try:
        source = config.build()
        source.split()
    except DataError as error:
        return [error]
    for index in range(len(source)):
        try:
            source[index]
        except BadSample as error:
            found.append(error)
    return found


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


# Tables


def table(path, text, **config):
    path.write_text(text, encoding="utf-8")
    return make("csv", path=str(path), **config)


def test_table_tells_its_columns(tmp_path):
    header = "sequence,brightness,split,note,chain\n"
    rows = [
        f"ACGTACGTACGTACGTAA,{n / 7},{'test' if n % 3 else 'train'},note {n},MKTAYIAKQRQISFVKSHFSR" for n in range(30)
    ]
    source = table(tmp_path / "a.csv", header + "\n".join(rows))
    assert source.fields == {
        "sequence": "dna",
        "brightness": "number",
        "split": "label",
        "note": "text",
        "chain": "protein",
    }
    assert source[7]["brightness"] == 1.0
    assert source.where(7).endswith("a.csv:9")
    assert make("csv", path=str(tmp_path / "a.csv"), columns=["note", "split"])[0] == {
        "note": "note 0",
        "split": "train",
    }


def test_table_without_the_named_column_says_which_it_may_be(tmp_path):
    table(tmp_path / "a.csv", "text,label\nhello,a\nyou,b\n")
    with pytest.raises(DataError, match="no column 'txt'; did you mean 'text'"):
        make("csv", path=str(tmp_path / "a.csv"), columns=["txt"])


@pytest.mark.parametrize(
    ("ending", "delimiter"), [("csv", ","), ("csv", ";"), ("csv", "\t"), ("csv", "|"), ("tsv", "\t")]
)
@pytest.mark.parametrize("header", [True, False])
def test_table_finds_delimiter_quotes_and_header(tmp_path, ending, delimiter, header):
    written = io.StringIO()
    writer = csv_format.writer(written, delimiter=delimiter)
    rows = [[f'he said "{n}"{delimiter}\nand, well, left; so', ["ham", "spam"][n % 2], n] for n in range(20)]
    writer.writerows([["text", "what", "number"], *rows] if header else rows)
    source = table(tmp_path / f"a.{ending}", written.getvalue())
    names = ["text", "what", "number"] if header else ["column_1", "column_2", "column_3"]
    assert source.fields == dict(zip(names, ["text", "label", "number"]))
    assert len(source) == 20
    assert list(source[3].values()) == rows[3]


def test_table_of_prose_with_stray_quotes(tmp_path):
    rows = [f'{["ham", "spam"][n % 2]}\t{"" if n % 3 else chr(34)}hello "{n}, you' for n in range(30)]
    source = table(tmp_path / "a.tsv", "\n".join(rows))
    assert len(source) == 30
    assert source[1] == {"column_1": "spam", "column_2": 'hello "1, you'}
    assert source[3] == {"column_1": "spam", "column_2": '"hello "3, you'}


def test_numbers_alone_have_no_header(tmp_path):
    source = table(tmp_path / "a.csv", "".join(f"{n},{n * 2},5\n" for n in range(12)))
    assert len(source) == 12
    assert source[1] == {"column_1": 1.0, "column_2": 2.0, "column_3": 5.0}
    assert len(table(tmp_path / "b.csv", "1,2\n3,4\n", header=True)) == 1


def test_header_alone_is_no_table(tmp_path):
    with pytest.raises(DataError, match="has a header but no rows"):
        table(tmp_path / "a.csv", "text,label\n")


def test_bad_rows_are_bad_samples(tmp_path):
    rows = [f'"text, {n}",{n},ACGTACGTACGTACGTACGT' for n in range(300)]
    rows[10], rows[20], rows[30], rows[40] = "text,1", "text,one,ACGT", "text,,ACGT", "text,3,ACXT"
    rows[50] = '"never closed,1,ACGT'
    source = table(tmp_path / "a.csv", "words,count,gene\n" + "\n".join(rows) + "\n")
    assert len(source) == 300
    for index, why in [
        (10, "has 2 cells instead of 3"),
        (20, "'count' is 'one', not a number"),
        (30, "'count' is missing"),
        (40, "'gene' has 'X' at offset 2, which is no letter of DNA"),
        (50, "not a line of a table"),
    ]:
        with pytest.raises(BadSample, match=why) as caught:
            source[index]
        assert caught.value.where == f"{tmp_path / 'a.csv'}:{index + 2}"
    assert source[51]["words"] == "text, 51"


def test_column_that_is_mostly_missing_is_left_out(tmp_path):
    text = "name,weight\n" + "".join(f"a{n},{n if n % 4 else 'NA'}\n" for n in range(40))
    source = table(tmp_path / "a.csv", text)
    assert source.fields == {"name": "text"}
    assert "10 of the first 40 rows lack it" in source.notes[0]
    with pytest.raises(BadSample, match="'weight' is missing"):
        make("csv", path=str(tmp_path / "a.csv"), columns=["weight"])[0]


def test_table_of_bytes_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"PK\3\4\0\0\0\0")
    with pytest.raises(DataError, match="NUL"):
        make("csv", path=str(tmp_path / "a.csv"))


# Parquet


def test_parquet_shards_are_read_by_row_group(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    for shard in range(2):
        rows = [
            {"text": f"{shard} {n}", "stars": n % 5, "vector": [1.0, n], "meta": {"a": 1}, "raw": b"x"}
            for n in range(50)
        ]
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / f"{shard}.parquet", row_group_size=8)
    source = make("parquet", path=str(tmp_path))
    assert source.fields == {"text": "text", "stars": "number", "vector": "array"}
    assert len(source) == 100
    assert [source[index]["text"] for index in (0, 49, 50, 99, 7, 8)] == ["0 0", "0 49", "1 0", "1 49", "0 7", "0 8"]
    assert source.where(75) == f"{tmp_path / '1.parquet'}:row 25"
    assert make("parquet", path=str(tmp_path), fields={"stars": "label"}, columns=["stars"])[3] == {"stars": "3"}
    with pytest.raises(DataError, match="row group 0 holds"):
        make("parquet", path=str(tmp_path), largest_bytes=10)
    with pytest.raises(DataError, match="did you mean 'stars'"):
        make("parquet", path=str(tmp_path), columns=["star"])


def test_what_is_not_parquet_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 hello PAR1")
    with pytest.raises(DataError, match="not a whole parquet file"):
        make("parquet", path=str(tmp_path / "a.parquet"))


def test_parquet_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtra, match=r"sevenfold\[parquet\]"):
        make("parquet", path=str(tmp_path / "a.parquet"))


# Images


def picture(path, size=(8, 8), mode="RGB", color=(250, 10, 20), **options):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new(mode, size, color).save(path, **options)


def test_every_image_format_is_read(tmp_path):
    for ending in ("png", "jpg", "jpeg", "bmp", "gif", "webp", "tif", "tiff"):
        picture(tmp_path / f"a.{ending}")
    source = make("image_folder", path=str(tmp_path))
    assert len(source) == 8
    assert source.fields == {"image": "image"}
    for index in range(8):
        image = source[index]["image"]
        assert image.shape == (8, 8, 3)
        assert abs(image.astype(int).mean((0, 1)) - [250, 10, 20]).max() < 12


def test_folders_are_labels(tmp_path):
    for n in range(4):
        picture(tmp_path / "cat" / f"{n}.png")
        picture(tmp_path / "dog" / f"{n}.png", color=(n, n, n))
    source = make("image_folder", path=str(tmp_path))
    assert source.fields == {"image": "image", "label": "label"}
    assert [source[index]["label"] for index in range(8)] == ["cat"] * 4 + ["dog"] * 4


@pytest.mark.parametrize("name", ["captions.csv", "metadata.csv", "captions.jsonl", "metadata.jsonl"])
def test_captions_from_a_table(tmp_path, name):
    rows = [{"file_name": f"in/{n}.png", "text": f"picture {n}", "label": "odd" if n % 2 else "even"} for n in range(6)]
    for n, row in enumerate(rows):
        picture(tmp_path / row["file_name"], color=(n, n, n))
    picture(tmp_path / "unnamed.png")
    if name.endswith("jsonl"):
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    else:
        with open(tmp_path / name, "w", newline="") as file:
            writer = csv_format.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    source = make("image_folder", path=str(tmp_path))
    assert source.fields == {"image": "image", "label": "label", "caption": "text"}
    assert source[3]["caption"] == "picture 3"
    assert source[3]["image"][0, 0, 0] == 3
    assert source[3]["label"] == "odd"
    assert "1 images are left out" in source.notes[0]


def test_captions_that_lead_out_of_the_folder_are_refused(tmp_path):
    picture(tmp_path / "secret.png")
    folder = tmp_path / "data"
    for n in range(3):
        picture(folder / f"{n}.png", color=(n, n, n))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    names = [
        "0.png",
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "gone.png",
        "1.png",
        "a/../../secret.png",
    ]
    (folder / "captions.csv").write_text("file,caption\n" + "".join(f"{name},picture\n" for name in names))
    source = make("image_folder", path=str(folder))
    for index, why in [(1, "not in the folder")] * 3 + [(4, "no image")] + [(6, "not in the folder")]:
        with pytest.raises(BadSample, match=why) as caught:
            source[index]
        assert "captions.csv" in caught.value.where
    for index in (2, 3):
        with pytest.raises(BadSample, match="not in the folder"):
            source[index]
    assert source[0]["caption"] == source[5]["caption"] == "picture"


def test_table_without_captions_says_what_it_needs(tmp_path):
    picture(tmp_path / "0.png")
    (tmp_path / "captions.csv").write_text("who,what\n0.png,a dog\n1.png,a cat\n")
    with pytest.raises(DataError, match="needs a column that names the image"):
        make("image_folder", path=str(tmp_path))


def test_captions_beside_images(tmp_path):
    for n in range(4):
        picture(tmp_path / f"{n}.png", color=(n, n, n))
        (tmp_path / f"{n}.txt").write_text(f"picture {n}\n")
    (tmp_path / "2.txt").unlink()
    source = make("image_folder", path=str(tmp_path))
    assert source[1]["caption"] == "picture 1"
    with pytest.raises(BadSample, match=r"2\.txt: is missing"):
        source[2]


def test_images_of_many_sizes_are_resized_and_of_one_are_kept(tmp_path):
    for n, side in enumerate((20, 50, 70, 90)):
        picture(tmp_path / "many" / f"{n}.png", (side, side + 9))
        picture(tmp_path / "one" / f"{n}.png", (13, 21))
    many, one = (make("image_folder", path=str(tmp_path / name)) for name in ("many", "one"))
    assert many[0]["image"].shape == (64, 64, 3)
    assert "resized to 64 x 64" in many.notes[0]
    assert one[0]["image"].shape == (21, 13, 3)
    assert not one.notes
    assert make("image_folder", path=str(tmp_path / "one"), size=16, channels=1)[0]["image"].shape == (16, 16, 1)


def test_transparency_palettes_sixteen_bits_and_turned_images(tmp_path):
    picture(tmp_path / "alpha" / "0.png", mode="RGBA", color=(0, 0, 0, 0))
    assert make("image_folder", path=str(tmp_path / "alpha"))[0]["image"].min() == 255
    picture(tmp_path / "palette" / "0.png", mode="P", color=0)
    assert make("image_folder", path=str(tmp_path / "palette"))[0]["image"].shape == (8, 8, 3)
    (tmp_path / "deep").mkdir()
    Image.fromarray(np.full((8, 8), 257 * 100, np.uint16)).save(tmp_path / "deep" / "0.png")
    deep = make("image_folder", path=str(tmp_path / "deep"))[0]["image"]
    assert deep.shape == (8, 8, 1)
    assert (deep == 100).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "turned" / "0.jpg", (16, 8), exif=exif)
    assert make("image_folder", path=str(tmp_path / "turned"))[0]["image"].shape == (16, 8, 3)


def test_bad_images_are_bad_samples(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for n in range(4):
        Image.fromarray(noise).save(tmp_path / f"{n}.png")
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2.png").write_bytes(b"not an image")
    (tmp_path / "3.png").write_bytes(b"")
    source = make("image_folder", path=str(tmp_path))
    for index, why in [(1, "damaged"), (2, "is not an image"), (3, "is empty")]:
        with pytest.raises(BadSample, match=why) as caught:
            source[index]
        assert caught.value.where == str(tmp_path / f"{index}.png")
    assert np.array_equal(source[0]["image"], noise)
    assert not {1, 2, 3} & set(source.split()[1])


def test_images_of_too_many_pixels_are_not_decoded(tmp_path):
    picture(tmp_path / "0.png")
    Image.new("1", (9000, 9000)).save(tmp_path / "1.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "2.png")
    source = make("image_folder", path=str(tmp_path), size=8)
    start = time.perf_counter()
    for index in (1, 2):
        with pytest.raises(BadSample, match="pixels"):
            source[index]
    assert time.perf_counter() - start < 0.5


def test_folder_of_other_things_has_no_images(tmp_path):
    (tmp_path / "a.svg").write_text("<svg/>")
    with pytest.raises(DataError, match="holds no images"):
        make("image_folder", path=str(tmp_path))
    (tmp_path / "a.png").write_text("<svg/>")
    with pytest.raises(DataError, match="none of the first 1 images can be read"):
        make("image_folder", path=str(tmp_path))


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


# Arrays


@pytest.mark.parametrize(
    ("array", "shape", "dtype"),
    [
        (np.zeros((9, 5, 6), np.uint8), (5, 6, 1), np.uint8),
        (np.zeros((9, 5, 6, 3), np.uint8), (5, 6, 3), np.uint8),
        (np.zeros((9, 3, 5, 6), np.float64), (5, 6, 3), np.float32),
        (np.ones((9, 5, 6), bool), (5, 6, 1), np.uint8),
        (np.full((9, 5, 6), 200, np.int64), (5, 6, 1), np.uint8),
    ],
)
def test_arrays_of_images(tmp_path, array, shape, dtype):
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(
        tmp_path / "a.npz", pictures=array, y=np.arange(9) % 2, z=np.arange(9) / 2, names=np.array(["a", "b"])
    )
    image = make("arrays", path=str(tmp_path / "a.npy"))[2]["data"]
    assert image.shape == shape
    assert image.dtype == dtype
    source = make("arrays", path=str(tmp_path / "a.npz"))
    assert source.fields == {"pictures": "image", "y": "label", "z": "number"}
    assert source[3]["y"] == "1"
    assert source[3]["z"] == 1.5
    assert source[3]["pictures"].max() == (255 if array.dtype == bool else array.max())
    assert "names [2]" in source.notes[0]
    assert make("arrays", path=str(tmp_path / "a.npz"), fields={"pictures": "image", "y": "number"})[3]["y"] == 1.0


def test_arrays_that_are_not_read_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", cloud=np.zeros((9, 4)), label=np.arange(9))
    with pytest.raises(DataError, match=r"cloud \[9, 4\] float64.*read are images"):
        make("arrays", path=str(tmp_path / "a.npz"))
    np.savez(tmp_path / "a.npz", image=np.full((9, 4, 4), 3.5))
    with pytest.raises(DataError, match="images of floats are in 0…1"):
        make("arrays", path=str(tmp_path / "a.npz"))
    with pytest.raises(DataError, match="did you mean 'image'"):
        make("arrays", path=str(tmp_path / "a.npz"), fields={"imag": "image"})
    images = np.zeros((200, 4, 4))
    images[150, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(BadSample, match="nan"):
        make("arrays", path=str(tmp_path / "a.npy"))[150]


def test_pickled_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.zeros((9, 4, 4)), names=np.array([{"a": 1}] * 9, dtype=object))
    with pytest.raises(DataError, match="'names' holds pickled Python objects"):
        make("arrays", path=str(tmp_path / "a.npz"))
    assert make("arrays", path=str(tmp_path / "a.npz"), fields={"image": "image"})[0]["image"].shape == (4, 4, 1)
    (tmp_path / "b.npy").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(DataError, match="not a whole"):
        make("arrays", path=str(tmp_path / "b.npy"))


def test_array_bombs_are_refused_before_they_are_unpacked(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 16, 16)})
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("image.npy", "w") as file,
    ):
        file.write(header.getvalue())
        for _ in range(128):
            file.write(bytes(1 << 20))
    (tmp_path / "a.npy").write_bytes(header.getvalue() + bytes(100))
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(DataError, match="declares arrays of 268,435,456 bytes"):
        make("arrays", path=str(tmp_path / "a.npz"))
    with pytest.raises(DataError, match="not a whole"):
        make("arrays", path=str(tmp_path / "a.npy"))
    with pytest.raises(DataError, match="1,000 are allowed"):
        make("arrays", path=str(tmp_path / "a.npy"), largest_bytes=1000)
    assert time.perf_counter() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


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
