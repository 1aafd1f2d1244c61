"""Tar files of samples: as Python's tarfile reads them, in any form of the format; nothing is unpacked, and nothing that means harm is read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import tarfile

import numpy as np
import pytest
from PIL import Image

from sevenfold.core.errors import BadSample, DataError
from sevenfold.core.part import find
from sevenfold.data import numbers
from sevenfold.data.recognise import recognise
from sevenfold.data.source import _contents
from sevenfold.data.source._raw import spelled
from sevenfold.data.source._tarred import Here, Streamed, members


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
