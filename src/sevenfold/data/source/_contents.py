"""Where the samples of a tar file lie: looked up once, and kept in the user's cache, or beside the tar where it lies elsewhere.

    pictures-0000.tar
    pictures-0000.tar.index        a .npz of the arrays below, none of them packed: nothing in it is unpickled

Looking up a file here reads its headers and the first MiB of each member; of one elsewhere all bytes come, once, and are not kept.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sevenfold.core.errors import DataError
from sevenfold.core.files import write_atomic
from sevenfold.core.seeds import seed_of
from sevenfold.data.arranged import AHEAD
from sevenfold.data.remote import at_once, base
from sevenfold.data.source._raw import Raw
from sevenfold.data.source._tarred import Here, Member, Streamed, members

INDEX = ".index"
"""What is behind the name of a tar in that of its index."""
LARGE = 32 << 20
"""Bytes of a file here from which on it is worth keeping where its samples lie."""
LARGEST = 1 << 30
"""Bytes of an index; it is never longer than its tar."""
WORDS = ("keys", "endings", "whys")
ARRAYS = {
    **dict.fromkeys(("hashes", "sha256", *WORDS), "u1"),
    **dict.fromkeys(("places", "firsts", "offsets", "sizes"), "i8"),
    "codes": "i4",
}


class Words:
    """Words, none with a NUL in it, as bytes: far fewer of them than strings take."""

    def __init__(self, content: np.ndarray):
        """`content` [bytes] uint8: each with a NUL behind it. ValueError if it is not UTF-8."""
        content.tobytes().decode()
        self.content, self.ends = content, np.flatnonzero(content == 0)

    @classmethod
    def of(cls, words: Iterable[str]) -> Words:
        return cls(np.frombuffer("".join(f"{word}\0" for word in words).encode(), np.uint8))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> str:
        start = int(self.ends[number - 1]) + 1 if number else 0
        return self.content[start : self.ends[number]].tobytes().decode()


class Contents(NamedTuple):
    """Where the parts of each sample are. Files of one stem (the name up to the first dot behind the last slash) are one sample.

    keys     the stem of each sample, in their order
    hashes   of what each sample is about, [samples, 16] bytes; places: what they are held out by, [samples] int64
    firsts   [samples + 1]: sample i has the parts firsts[i] … firsts[i + 1]
    endings  those that there are, lower case; codes: the number of each part's, int32
    offsets, sizes  of each part; a size below 0: it cannot be read
    whys     of each such part
    sha256   of the file [32] uint8, or none: it lies here
    """

    keys: Words
    hashes: np.ndarray
    places: np.ndarray
    firsts: np.ndarray
    endings: Words
    codes: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    whys: Words
    sha256: np.ndarray

    def counted(self, samples: int) -> dict[str, int]:
        """Ending → how many parts of the first samples have it."""
        used = np.bincount(self.codes[: self.firsts[samples]], minlength=len(self.endings))
        return {self.endings[code]: int(many) for code, many in enumerate(used) if many}

    def ending(self, part: int) -> str:
        return self.endings[int(self.codes[part])]

    def why(self, part: int) -> str:
        """Why a part cannot be read."""
        return self.whys[int(np.count_nonzero(self.sizes[:part] < 0))]


class Looked:
    """What is in each of some files: what was kept of it, what an index beside it says, or else the file itself."""

    def __init__(self, raw: Raw, about: tuple[str, ...], hashed: bool):
        """`about`: endings of what a sample is about, the first that it has; `hashed`: whether the hash of each file is needed."""
        self.raw, self.about, self.hashed = raw, about, hashed
        self._here: OrderedDict[int, Contents] = OrderedDict()

    def each(self, limit: int | None) -> Iterator[Contents]:
        """Those of all files, or of the first ones, which hold so many samples. Files elsewhere are looked up several at a time."""
        count, numbers = 0, range(len(self.raw))
        for number, found in enumerate(
            at_once(self._look, numbers) if self.raw.far and limit is None else map(self._look, numbers)
        ):
            self._remember(number, found)
            yield found
            count += len(found.keys)
            if limit is not None and count >= limit:
                return

    def __getitem__(self, number: int) -> Contents:
        if number not in self._here:
            self._remember(number, self._look(number))
        self._here.move_to_end(number)
        return self._here[number]

    def _remember(self, number: int, found: Contents) -> None:
        """In memory: all of them, or those of the files that are read together."""
        self._here[number] = found
        while self.raw.far and self.raw.group is not None and len(self._here) > self.raw.group + AHEAD:
            self._here.popitem(last=False)

    def _look(self, number: int) -> Contents:
        raw, size = self.raw, self.raw.sizes[number]
        place, worth = place_of(raw.marks[number]), raw.far or size >= LARGE
        found = kept(place, size) if worth else None
        if found is None or self.hashed and not len(found.sha256):
            index = raw.beside(number, INDEX, min(size, LARGEST)) if raw.far else None
            found = unpacked(index, size) if index else None
            found = found or self._read(number)
            if worth:
                with suppress(OSError):
                    write(place, found)
        if raw.far and len(found.sha256):
            raw.known(number, found.sha256.tobytes().hex())
        return found

    def _read(self, number: int) -> Contents:
        """One elsewhere is brought here if all of them find room, or else read where it lies, and nothing of it stays."""
        raw = self.raw
        name, size = raw.names[number], raw.sizes[number]
        if raw.far and raw.group is not None:
            return raw.look(number, partial(look_through, size=size, where=name, about=self.about))
        return raw.used(number, partial(look_up, size=size, where=name, about=self.about, whole=self.hashed))

    def written(self, folder: Path) -> Iterator[Path]:
        """An index of each file, to lie beside it."""
        for name, found in zip(self.raw.names, self.each(None)):
            path = folder / f"{name.rpartition('/')[2]}{INDEX}"
            write(path, found)
            self._here.clear()
            yield path


def look_up(path: Path, size: int, where: str, about: tuple[str, ...], whole: bool) -> Contents:
    """The contents of a file here, read whole if its hash is wanted. DataError if it is no tar file."""
    try:
        with open(path, "rb") as file:
            if whole:
                return look_through(file, size, where, about)
            return _contents(members(Here(file), size, where), about)
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror}") from None


def look_through(file: Any, size: int, where: str, about: tuple[str, ...]) -> Contents:
    """Those of a file of `size` bytes that is read once from its begin to its end, and its hash."""
    passed = Streamed(file, size, where)
    found = list(members(passed, size, where))
    return _contents(found, about)._replace(sha256=np.frombuffer(passed.hash(), np.uint8))


def _contents(found: Iterable[Member], about: tuple[str, ...]) -> Contents:
    samples: dict[str, list[tuple[str, Member]]] = {}
    seen: set[tuple[str, str]] = set()
    for member in found:
        folder, slash, last = member.name.rpartition("/")
        stem, dot, ending = last.partition(".")
        if member.why or (dot and stem):
            key, ending = f"{folder}{slash}{stem}", ending.lower()
            if (key, ending) in seen:
                member = member._replace(why=member.why or f"holds two files that end in .{ending}")
            seen.add((key, ending))
            samples.setdefault(key, []).append((ending, member))
    hashes = [_hash(parts, about) for parts in samples.values()]
    parts = [part for some in samples.values() for part in some]
    codes = {ending: code for code, ending in enumerate(dict.fromkeys(ending for ending, _ in parts))}
    return Contents(
        Words.of(samples),
        np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 16),
        np.array([seed_of("held out", one.hex()) for one in hashes], np.int64),
        np.cumsum([0, *map(len, samples.values())]),
        Words.of(codes),
        np.array([codes[ending] for ending, _ in parts], np.int32),
        np.array([member.offset for _, member in parts], np.int64),
        np.array([-1 if member.why else member.size for _, member in parts], np.int64),
        Words.of(member.why for _, member in parts if member.why),
        np.zeros(0, np.uint8),
    )


def _hash(parts: list[tuple[str, Member]], about: tuple[str, ...]) -> bytes:
    """Of what the sample is about, or else of all its parts that can be read."""
    found: dict[str, bytes] = {ending: member.hash for ending, member in parts if not member.why}
    chosen = next((found[ending] for ending in about if ending in found), None)
    return chosen or hashlib.blake2b(b"".join(found.values()), digest_size=16).digest()


def place_of(mark: str) -> Path:
    """Where the contents of a file are kept; `mark` changes when the file does."""
    return base() / "tar" / f"{hashlib.sha256(mark.encode()).hexdigest()[:24]}{INDEX}"


def kept(path: Path, size: int) -> Contents | None:
    """Contents that were kept, if they are whole and fit a file of this size."""
    with suppress(OSError):
        return unpacked(path.read_bytes(), size)
    return None


def unpacked(content: bytes, size: int) -> Contents | None:
    """The contents of a file of `size` bytes as its index tells them; None if it is none, or damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist()):
                return None
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in Contents._fields}
        if any(arrays[name].dtype != np.dtype(sort) for name, sort in ARRAYS.items()):
            return None
        parts: Any = [Words(array) if name in WORDS else array for name, array in arrays.items()]
        found = Contents(*parts)
        samples, count = len(found.keys), len(found.offsets)
        fits = found.hashes.shape == (samples, 16) and found.places.shape == (samples,)
        fits = fits and found.firsts.shape == (samples + 1,) and found.firsts[0] == 0
        fits = fits and found.firsts[-1] == count == len(found.sizes) == len(found.codes)
        fits = fits and bool(((found.codes >= 0) & (found.codes < len(found.endings))).all())
        fits = fits and np.count_nonzero(found.sizes < 0) == len(found.whys)
        fits = fits and bool((np.diff(found.firsts) > 0).all() and (found.places >= 0).all())
        fits = fits and bool(((found.offsets >= 0) & (found.offsets <= size)).all())
        fits = fits and bool((found.sizes <= size - found.offsets).all()) and len(found.sha256) in (0, 32)
        return found if fits else None
    except Exception:  # a damaged file may raise anything: it is made again
        return None


def write(path: Path, found: Contents) -> None:
    """Write an index."""
    buffer = io.BytesIO()
    told: dict[str, Any] = {name: value.content if name in WORDS else value for name, value in found._asdict().items()}
    np.savez(buffer, **told)
    write_atomic(path, buffer.getvalue())
