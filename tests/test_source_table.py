"""Tables and Parquet: files that people really have, and bad ones."""

import csv as csv_format
import io

import pytest

from sevenfold.core.errors import BadSample, DataError, MissingExtra
from sources import make

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
