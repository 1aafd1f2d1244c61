"""Tar files of samples: as Python's tarfile reads them, in any form of the format; nothing is unpacked, and nothing that means harm is read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import shutil
import tarfile
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from sevenfold.cli import main
from sevenfold.core.errors import BadSample, DataError
from sevenfold.core.part import find
from sevenfold.data import numbers, remote
from sevenfold.data.loader import Items, Order, look_through
from sevenfold.data.recognise import recognise
from sevenfold.data.source import _contents, _raw
from sevenfold.data.source._raw import spelled
from sevenfold.data.source._tarred import Here, Streamed, members
from sevenfold.training.prepare_data import prepare_data, prepare_index


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("SEVENFOLD_DATA", str(tmp_path / "kept"))


def picture(number, size=8):
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (size, size, 3), np.uint8)).save(content, "png")
    return content.getvalue()


def packed(path, files, form=tarfile.GNU_FORMAT, mode="w"):
    with tarfile.open(path, mode, format=form) as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def tar(path, **settings):
    return find("source", "tar").Config(path=str(path), **settings).build()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_as_tarfile_finds_them(form, tmp_path):
    draw, files = random.Random(form), {}
    for number in range(60):
        folder = "/".join("".join(draw.choices("abcé", k=draw.randint(1, 30))) for _ in range(draw.randint(0, 3)))
        length = draw.choice((5, 60, 90)) if form == tarfile.USTAR_FORMAT else draw.choice((5, 60, 300))
        name = f"{folder}/{number}-{'x' * length}.txt".lstrip("/")
        files[name] = draw.randbytes(draw.choice((0, 1, 511, 512, 513, 2000)))
    path = packed(tmp_path / "a.tar", files, form)
    with tarfile.open(path) as file:
        wanted = [(one.name, one.offset_data, one.size) for one in file.getmembers()]
    content = path.read_bytes()
    for file in (Here(io.BytesIO(content)), Streamed(io.BytesIO(content), len(content), "a.tar")):
        found = list(members(file, len(content), "a.tar"))
        assert [one[:3] for one in found] == wanted and len(wanted) == 60
        assert [content[one.offset : one.offset + one.size] for one in found] == list(files.values())
    assert file.hash() == hashlib.sha256(content).digest()


def test_the_samples_of_a_folder(tmp_path):
    """As the source of folders reads the same pictures and captions."""
    (tmp_path / "all").mkdir()
    files = {}
    for number in range(20):
        files |= {f"{number:04d}.png": picture(number), f"{number:04d}.txt": f"number {number}".encode()}
    for name, content in files.items():
        (tmp_path / "all" / name).write_bytes(content)
    names = sorted(files)
    for number in range(2):
        packed(
            tmp_path / f"part-{number:03d}.tar", {name: files[name] for name in names[20 * number : 20 * number + 20]}
        )
    wanted = find("source", "image_folder").Config(path=str(tmp_path / "all")).build()
    for pattern in ("part-{000..001}.tar", "part-*.tar", "part-00{0,1}.tar"):
        found = recognise(f"{tmp_path}/{pattern}").build()
        assert found.kind == "tar" and found.fields == {"image": "image", "caption": "text"} == wanted.fields
        assert len(found) == 20 and [found.key(n) for n in range(20)] == [found.key(n) for n in range(20)]
        for index in range(20):
            assert np.array_equal(found[index]["image"], wanted[index]["image"])
            assert found[index]["caption"] == wanted[index]["caption"]
    assert found.where(13).endswith("part-001.tar:0013")
    (tmp_path / "some").mkdir()
    os.rename(tmp_path / "part-000.tar", tmp_path / "some" / "a.tar")
    assert recognise(tmp_path / "some").kind == "tar" and len(recognise(tmp_path / "some").build()) == 10
    with pytest.raises(DataError, match=r"part-000\.tar: there is no such file"):
        tar(f"{tmp_path}/part-{{000..001}}.tar")


def test_text_labels_and_json(tmp_path):
    files = {}
    for number in range(30):
        told = {"text": f"word {number} of many", "n": number, "label": "ab"[number % 2], "more": {}}
        files |= {f"x/{number}.json": json.dumps(told).encode(), f"x/{number}.cls": b"%d" % (number % 3)}
    files["x/7.json"] = b"{"
    files["x/8.seg.png"] = picture(0)
    found = tar(packed(tmp_path / "a.tar", files))
    assert found.fields == {"label": "label", "text": "text", "n": "number"}
    assert found[4] == {"label": "1", "text": "word 4 of many", "n": 4.0}
    with pytest.raises(BadSample, match=r"a\.tar:x/7: \.json is not JSON"):
        found[7]
    assert any("seg.png" in note for note in found.notes) and any("more" in note for note in found.notes)
    only = tar(packed(tmp_path / "b.tar", {f"{n}.txt": f"text {n}".encode() for n in range(9)}))
    assert only.fields == {"text": "text"} and only[3] == {"text": "text 3"}
    few = {f"{n}.png": picture(n) for n in range(9)} | {"3.cls": b"x"}
    some = tar(packed(tmp_path / "c.tar", few), partly=["label"])
    assert some[3]["label"] == "x" and some[4]["label"] is None
    assert tar(tmp_path / "c.tar").fields == {"image": "image"}


def test_equal_pictures_are_on_one_side(tmp_path):
    files = {f"{n:03d}.png": picture(n % 20) for n in range(60)} | {f"{n:03d}.txt": b"%d" % n for n in range(60)}
    path = packed(tmp_path / "a.tar", files)
    for settings in ({}, {"group": 1}):
        found = tar(path, held_out=0.3, **settings)
        train, held_out = found.split()
        assert train and held_out and sorted([*train, *held_out]) == list(range(60))
        few = tar(path, held_out=1e-9, **settings).split()
        assert few[1] and not {n % 20 for n in few[0]} & {n % 20 for n in few[1]}
        assert not {n % 20 for n in train} & {n % 20 for n in held_out}


def test_what_was_looked_up_is_kept(tmp_path, monkeypatch):
    files = {f"{n}.txt": f"text {n}".encode() for n in range(12)}
    path = packed(tmp_path / "a.tar", files)
    monkeypatch.setattr(_contents, "LARGE", 0)
    wanted = [tar(path)[n] for n in range(12)]
    (index,) = (tmp_path / "kept" / "tar").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(_contents, "look_up", None)
        assert [tar(path)[n] for n in range(12)] == wanted
    draw, whole = random.Random(0), index.read_bytes()
    for _ in range(40):
        place = draw.randrange(len(whole))
        index.write_bytes(whole[:place] + bytes([draw.randrange(256)]) + whole[place + draw.randrange(9) :])
        assert [tar(path)[n] for n in range(12)] == wanted
    packed(path, files | {"new.txt": b"new"})
    assert len(tar(path)) == 13


def harmful():
    good = {f"{n}.txt": b"some" for n in range(9)}
    for sort in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S"):
        member = tarfile.TarInfo("evil.txt")
        member.type, member.linkname = sort, "/etc/passwd"
        yield good, member.tobuf(), r"evil: \.txt is a .*not read"
    member = tarfile.TarInfo("huge.txt")
    member.size = 1 << 62
    yield good, member.tobuf(), r"huge: \.txt is cut off"
    for sort in (b"L", b"x", b"g"):
        member = tarfile.TarInfo("name")
        member.type, member.size = sort, 1 << 33
        yield good, member.tobuf(), r"a header of 8,589,934,592 bytes"
    sparse = b"22 GNU.sparse.major=1\n"
    member = tarfile.TarInfo("PaxHeaders/holes")
    member.type, member.size = tarfile.XHDTYPE, len(sparse)
    holes = tarfile.TarInfo("holes.txt")
    holes.size = 4
    yield (
        good,
        member.tobuf() + sparse.ljust(512, b"\0") + holes.tobuf() + b"0\n0\n".ljust(512, b"\0"),
        r"holes: \.txt is a sparse file",
    )
    named = b"18 path=ev\0il.txt\n"
    member = tarfile.TarInfo("PaxHeaders/x")
    member.type, member.size = tarfile.XHDTYPE, len(named)
    link = tarfile.TarInfo("x")
    link.type = tarfile.SYMTYPE
    yield good, member.tobuf() + named.ljust(512, b"\0") + link.tobuf(), r"ev\\0il: \.txt is a link"
    yield good, b"rubbish" * 100, "damaged from here on"
    yield good | {"0.txt": b"again"}, b"", None


@pytest.mark.parametrize("number", range(14))
def test_what_means_harm_is_one_bad_sample(number, tmp_path):
    files, more, why = list(harmful())[number]
    path = packed(tmp_path / "a.tar", files)
    content = path.read_bytes()
    end = 1024 * len(files)
    path.write_bytes(content[:end] + more + b"\0" * (1024 if why and "damaged" not in why else 0))
    found = tar(path, bad_share=0.5)
    bad = []
    for index in range(len(found)):
        try:
            assert found[index]["text"] in ("some", "again")
        except BadSample as error:
            bad.append(str(error))
    if why is None:
        assert not bad
    else:
        assert len(bad) == 1 and re.search(why, bad[0])


def test_names_are_names_only(tmp_path):
    names = ["../../up.txt", "/etc/root.txt", "a/../b.txt", "..txt", "~/x.txt", "\\\\host\\x.txt"]
    (tmp_path / "in").mkdir()
    path = packed(tmp_path / "in" / "a.tar", dict.fromkeys(names, b"some"))
    before = sorted(tmp_path.rglob("*"))
    found = tar(path)
    assert {found[n]["text"] for n in range(len(found))} == {"some"} and "../../up" in found.where(0)
    assert [p for p in sorted(tmp_path.rglob("*")) if "kept" not in str(p)] == before
    for mode, ending in (("w:gz", "a.tar"), ("w:bz2", "b.tar")):
        packed(tmp_path / ending, {"a.txt": b"a"}, mode=mode)
        with pytest.raises(DataError, match=r"\.tar: is not a tar file" + (".*unpack it" if "gz" in mode else "")):
            tar(tmp_path / ending)
    twice = tmp_path / "twice.tar"
    with tarfile.open(twice, "w") as file:
        for n in [*range(9), 3]:
            member = tarfile.TarInfo(f"{n}.txt")
            member.size = 4
            file.addfile(member, io.BytesIO(b"some"))
    with pytest.raises(BadSample, match=r"twice\.tar:3: \.txt holds two files"):
        tar(twice, bad_share=0.5)[3]


def test_patterns():
    assert spelled("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert spelled("{a,b}{1..2}") == ["a1", "a2", "b1", "b2"] and spelled("plain") == ["plain"]
    with pytest.raises(DataError, match="more than 100,000"):
        spelled("{0..99999}-{0..99999}-{0..999999999999}")
    for pattern, why in (("{0..9999}{9..0}", "9..0. counts down"), ("{a}" * 1200, "more than 16 braces")):
        with pytest.raises(DataError, match=why):
            spelled(pattern)


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


def test_numbers_in_few_bytes():
    """As lists do it."""
    draw = random.Random(0)
    for given in ([], [3], [4, 5, 6], range(2, 9), sorted(draw.sample(range(90), 30)), [5, 1, 9, 2]):
        found, listed = numbers.packed(given), list(given)
        assert list(found) == listed and (
            len(listed) < 2 or isinstance(found, range) == (listed[-1] - listed[0] == len(listed) - 1)
        )
        assert list(numbers.moved(found, 7)) == [number + 7 for number in listed]
        assert list(numbers.within(given, range(4, 40))) == [number for number in listed if number in range(4, 40)]
        assert list(numbers.joined([given, [50], found])) == [*listed, 50, *listed]
        assert numbers.packed(listed) == found and bool(found) == bool(listed)
