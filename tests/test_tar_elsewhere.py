"""Tar and parquet in many files, here and at a URL: looked up once, by an index or by passing through, and few of them kept here."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections import Counter

import numpy as np
import pytest

from sevenfold.cli import main
from sevenfold.core.errors import DataError
from sevenfold.data import numbers, remote
from sevenfold.data.loader import Items, Order, look_through
from sevenfold.data.recognise import recognise
from sevenfold.data.source import _raw
from sevenfold.training.prepare_data import prepare_data, prepare_index
from test_tar import packed, tar


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("SEVENFOLD_DATA", str(tmp_path / "kept"))


@pytest.fixture
def far(tmp_path, monkeypatch):
    """(a pattern of ten tars elsewhere, settings with which few of them are kept here, bytes of each file that came)."""
    (tmp_path / "far").mkdir()
    for number in range(10):
        files = {f"{number}-{n}.txt": f"text {number} {n}".encode() for n in range(number + 3)}
        packed(tmp_path / "far" / f"a-{number}.tar", files)
    came: Counter[str] = Counter()
    opened, broken = remote.opened, []
    monkeypatch.setattr(remote, "PAUSES", (0.0,))

    class Counted:
        def __init__(self, where):
            self.name, self.file = where.rpartition("/")[2], opened(where)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def read(self, size):
            if self.name == "a-3.tar" and not broken:
                broken.append(self.name)
                raise ConnectionError("reset by peer")
            found = self.file.read(size)
            came[self.name] += len(found)
            return found

    for module in (remote, _raw):
        monkeypatch.setattr(module, "opened", Counted)
    largest = max(path.stat().st_size for path in (tmp_path / "far").iterdir())
    return f"file://{tmp_path}/far/a-{{0..9}}.tar", {"cache": 6 * largest, "held_out": 0.2}, came


def test_looking_up_keeps_no_bytes(far, tmp_path):
    """Each file comes once to be looked up, from its first byte to its last, and never again: what is kept is its hash and places."""
    url, settings, came = far
    files = sorted((tmp_path / "far").iterdir())
    source = tar(url, **settings)
    assert {name: size for name, size in came.items() if size} == {path.name: path.stat().st_size for path in files}
    assert not list((tmp_path / "kept").rglob("*.tar"))
    came.clear()
    again = tar(url, **settings)
    assert not came and again.split() == source.split()
    near = tar(tmp_path / "far", held_out=0.2)
    assert [again[n] for n in range(len(again))] == [near[n] for n in range(len(near))]
    assert again.split() == tuple(map(numbers.packed, near.split()))
    assert len(again._tars._here) < 10
    content = files[7].read_bytes()
    other, stat = content.replace(b"text 7 3", b"TEXT 7 3"), files[7].stat()
    for path in (tmp_path / "kept").rglob("*-a-7.tar"):
        path.unlink()
    files[7].write_bytes(other)
    os.utime(files[7], ns=(stat.st_atime_ns, stat.st_mtime_ns))  # neither size nor time tell it
    changed = tar(url, **settings)
    place = next(n for n in range(len(changed)) if changed.where(n).endswith("a-7.tar:7-3"))
    with pytest.raises(DataError, match=r"a-7\.tar: is not as its manifest or index says"):
        changed[place]


def test_an_index_beside_a_tar(far, tmp_path, monkeypatch, capsys):
    """Training begins without any file having come to be looked up."""
    url, settings, came = far
    wanted = tar(tmp_path / "far", held_out=0.2)
    assert main(["prepare", str(tmp_path / "far"), "--index", "--out", str(tmp_path / "far")]) == 0
    assert capsys.readouterr().err.count(".tar.index") == 10
    assert recognise(tmp_path / "far").kind == "tar" and len(recognise(tmp_path / "far").build()) == len(wanted)
    whole = (tmp_path / "far" / "a-8.tar.index").read_bytes()
    source = tar(url, **settings)
    assert set(came) == {f"a-{number}.tar.index" for number in range(10)}
    assert source.split() == tuple(map(numbers.packed, wanted.split()))
    assert [source[n] for n in range(len(source))] == [wanted[n] for n in range(len(wanted))]
    bombs = []
    for packing in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        bombs.append(io.BytesIO())
        with zipfile.ZipFile(bombs[-1], "w", packing) as archive, np.load(io.BytesIO(whole)) as arrays:
            for name in arrays.files:
                content = io.BytesIO()
                np.save(content, arrays[name])
                shape = content.getvalue().replace(b"(11,)", b"(1 << 40,)") if packing == zipfile.ZIP_STORED else b""
                archive.writestr(f"{name}.npy", shape or content.getvalue())
    evil = io.BytesIO()
    np.savez(evil, keys=np.array([print], object))
    bad = [b"", b"{}", whole[:-20], *(one.getvalue() for one in bombs), evil.getvalue()]
    for number, content in enumerate(bad):
        (tmp_path / "far" / "a-8.tar.index").write_bytes(content)
        monkeypatch.setenv("SEVENFOLD_DATA", str(tmp_path / f"kept{number}"))
        came.clear()
        assert len(tar(url, **settings)) == len(wanted)
        assert {name for name in came if name.endswith(".tar")} == {"a-8.tar"}
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n' * 20)
    with pytest.raises(DataError, match="jsonl needs no index"):
        prepare_index(tmp_path / "x.jsonl", tmp_path)


def test_from_elsewhere_with_few_here(tmp_path, monkeypatch):
    """Every sample once, a few files at a time; each file comes once to be looked up and about once an epoch."""
    monkeypatch.setattr("sevenfold.data.kept.Kept.ahead", lambda self, names: None)
    (tmp_path / "far").mkdir()
    for number in range(10):
        files = {f"{number}-{n}.txt": f"text {number} {n}".encode() for n in range(number + 3)}
        packed(tmp_path / "far" / f"a-{number}.tar", files)
    sizes = [path.stat().st_size for path in (tmp_path / "far").iterdir()]
    fetched = Counter()
    fetch = remote.fetch
    monkeypatch.setattr(
        "sevenfold.data.remote.fetch", lambda where, *more: (fetched.update([where]), fetch(where, *more))
    )
    url = f"file://{tmp_path}/far/a-{{0..9}}.tar"
    config = recognise(url).replace(cache=6 * max(sizes), held_out=0.2)
    source, near = config.build(), tar(f"{tmp_path}/far/a-{{0..9}}.tar")
    assert set(fetched.values()) == {1} and len(fetched) == 10
    assert [source[n] for n in range(len(source))] == [near[n] for n in range(len(near))]
    fetched.clear()
    config.build()
    assert not fetched
    items = Items(source, source.split()[0], {}, 0, True)
    order = Order(len(items), 1, 0, 0, 1, arranged=items.arranged)
    places = [order.key(place)[1] for place in range(len(items))]
    assert sorted(places) == list(range(len(items)))
    for place in places:
        source[items.indices[place]]
    assert sum(fetched.values()) <= 10 + 6
    kept = sum(file.stat().st_size for file in (tmp_path / "kept").rglob("*.tar"))
    assert 0 < kept <= 6 * max(sizes)
    for url, why in (
        (f"file://{tmp_path}/far/b-*.tar", "no such files"),
        (f"file://{tmp_path}/far/b-0.tar", "b-0.tar"),
    ):
        with pytest.raises(DataError, match=why):
            tar(url)


def test_parquet_in_many_files_here_and_elsewhere(tmp_path, monkeypatch):
    """One file or many, here or there: the same rows. Elsewhere only what is asked for comes."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"text": f"row {n} of many", "n": float(n)} for n in range(90)]
    (tmp_path / "far").mkdir()
    for number in range(6):
        some = pyarrow.Table.from_pylist(rows[15 * number : 15 * number + 15])
        parquet.write_table(some, tmp_path / "far" / f"p-{number}.parquet", row_group_size=4)
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "all.parquet")
    wanted = recognise(tmp_path / "all.parquet").build()
    largest = max(path.stat().st_size for path in (tmp_path / "far").iterdir())
    for path in (f"{tmp_path}/far/p-{{0..5}}.parquet", f"{tmp_path}/far", f"file://{tmp_path}/far/p-*.parquet"):
        config = recognise(path)
        found = config.replace(cache=5 * largest).build()
        assert config.kind == "parquet" and [found[n] for n in range(90)] == rows == [wanted[n] for n in range(90)]
        assert found.where(47).endswith("p-3.parquet:row 2")
        assert (found.shelves is not None) == ("://" in path)
    kept = list((tmp_path / "kept").glob("*/*.parquet"))
    assert len(kept) == 5 and all(path.stat().st_size <= largest for path in kept)
    fetched = Counter()
    fetch = remote.fetch
    monkeypatch.setattr(
        "sevenfold.data.remote.fetch", lambda where, *more: (fetched.update([where]), fetch(where, *more))
    )
    sides = config.replace(cache=5 * largest, held_out=0.3).build().split()
    assert sides == tuple(map(numbers.packed, wanted.config.replace(held_out=0.3).build().split())) and sides[1]
    assert set(fetched.values()) == {1}  # each file once, and the next time none but the first
    fetched.clear()
    assert config.replace(cache=5 * largest, held_out=0.3).build().split() == sides and len(fetched) <= 1


def test_prepared_from_tar_and_from_elsewhere(tmp_path):
    """Tokens made of a tar, of one elsewhere, and of the texts themselves are the same."""
    texts = {f"{n:03d}.txt": f"this is text {n} of some" for n in range(80)}
    for number in range(2):
        some = list(texts.items())[40 * number : 40 * number + 40]
        packed(tmp_path / f"t-{number}.tar", {name: text.encode() for name, text in some})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts.values()))
    paths = [f"{tmp_path}/t-{{0..1}}.tar", f"file://{tmp_path}/t-{{0..1}}.tar", str(tmp_path / "a.jsonl")]
    made = []
    for number, path in enumerate(paths):
        folder = tmp_path / f"tokens{number}"
        prepare_data(path, folder, overrides=["stream.tokenizer=bytes"], workers=0, say=lambda _: None)
        found = recognise(folder).build()
        made.append(sorted(found[n]["text"] for n in range(len(found))))
    said: list[str] = []
    prepare_data(paths[1], tmp_path / "tokens1", overrides=["stream.tokenizer=bytes"], say=said.append)
    assert said == [f"{tmp_path / 'tokens1'}: is prepared already, and whole"]
    assert made[0] == made[1] == made[2] == sorted(texts.values())
    tokens = [(tmp_path / f"tokens{number}" / "train-00000.npy").read_bytes() for number in range(2)]
    assert tokens[0] == tokens[1]


def test_one_bad_sample_of_the_few_that_are_here(tmp_path):
    """Only the first file of a set elsewhere is looked through: a bad sample there is no share of the whole."""
    for number in range(6):
        files = {f"{number}-{n}.txt": b"\xff\xfe\0" if number == n == 1 else b"text %d" % n for n in range(30)}
        packed(tmp_path / f"a-{(number - 1) % 6}.tar", files)
    for path in (f"{tmp_path}/a-*.tar", f"file://{tmp_path}/a-*.tar"):
        source = tar(path, held_out=0.01)
        items = Items(source, range(len(source)), {"text": ("text", lambda raw, generator: raw)}, 0, False)
        assert source.at_hand(items.indices) == (30 if "://" in path else 180)
        look_through(items, 0.01)
    alone = tar(tmp_path / "a-0.tar")
    with pytest.raises(DataError, match="1 of 30 samples cannot be read"):
        look_through(Items(alone, range(30), {"text": ("text", lambda raw, generator: raw)}, 0, False), 0.01)


def test_what_changes_elsewhere_is_another_file(tmp_path):
    """Of the same name and size; and where files come and go, no more is kept than the limit."""
    (tmp_path / "far").mkdir()
    for name in "bd":
        packed(tmp_path / "far" / f"{name}.tar", {f"{n}.txt": b"text %d" % n for n in range(9)})
    size = (tmp_path / "far" / "b.tar").stat().st_size
    path = f"file://{tmp_path}/far/*.tar"
    first = tar(path, cache=4 * size)
    packed(tmp_path / "far" / "b.tar", {f"{n}.txt": b"word %d" % n for n in range(9)})
    changed = tar(path, cache=4 * size)
    assert first[0] == {"text": "text 0"} and changed[0] == {"text": "word 0"}
    assert first.files()[0].read_bytes() != changed.files()[0].read_bytes()
    for name in ("a", "c", "aa"):
        shutil.copy(tmp_path / "far" / "b.tar", tmp_path / "far" / f"{name}.tar")
        tar(path, cache=4 * size)
    assert 0 < sum(file.stat().st_size for file in (tmp_path / "kept").rglob("*.tar")) <= 4 * size


def test_keys_in_a_url_are_not_told(tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr(remote, "PAUSES", ())
    signed = "?X-Amz-Signature=" + "secret" * 60
    path = packed(tmp_path / "a.tar", {f"{n}.txt": b"\xff" if n == 3 else b"text %d" % n for n in range(40)})
    fsspec.filesystem("memory").pipe(f"/b/a.tar{signed}", path.read_bytes())
    source = tar(f"memory://b/a.tar{signed}", held_out=0.2)
    assert source[0] == {"text": "text 0"} and source.where(3) == "memory://b/a.tar:3"
    made = prepare_data(
        {"kind": "tar", "path": f"memory://b/a.tar{signed}", "bad_share": 0.5},
        tmp_path / "tokens",
        overrides=["stream.tokenizer=bytes"],
        workers=0,
        say=lambda _: None,
    )
    told = [file.read_bytes() for place in (made, tmp_path / "kept") for file in place.rglob("*") if file.is_file()]
    told += [str(file).encode() for file in (tmp_path / "kept").rglob("*")]
    fsspec.filesystem("memory").rm("/b", recursive=True)
    with pytest.raises(DataError, match=r"^memory://b/a\.tar: there is no such file[^?]*$") as error:
        tar(f"memory://b/a.tar{signed}")

    def refused():
        raise ValueError(f"no https://me:secret@host/a{signed} here")

    with pytest.raises(DataError, match=r"^s3://b/a: cannot be read: no https://host/a here$"):
        remote.tried(f"s3://me@b/a{signed}", refused)
    assert not any(b"secret" in content for content in [*told, str(error.value).encode()])
    assert remote.shown("https://me:secret@host/a-{0..9}.tar") == "https://host/a-{0..9}.tar"
    assert remote.shown("s3://host/a-?.tar") == "s3://host/a-?.tar" and remote.shown("a?b=c") == "a?b=c"
