"""What a tar file holds, by offset: read from its headers alone, which are bounded, so that no file of it costs memory or time.

    header [512]: name 100 · mode, owner 24 · size 12 · time 12 · checksum 8 · type 1 · link 100 · "ustar" 8 … prefix 155 at 345
    content, padded to 512

POSIX.1-2001 (ustar and pax), and the long names and large sizes of GNU tar. Links, devices and sparse files are told as such. Python's
tarfile reads a header of any length into memory.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sevenfold.core.errors import DataError
from sevenfold.core.files import write_atomic
from sevenfold.core.seeds import seed_of
from sevenfold.data.remote import base

BLOCK = 512
LONGEST = 1 << 16
"""Bytes of a header that tells a name."""
NAME = 4096
"""Letters of a name that count."""
WORDS = ("keys", "endings", "whys")
HASHED = 1 << 20
"""Bytes that the hash of a member is over."""
KINDS = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file"}


class Member(NamedTuple):
    """One file of it, or why it cannot be read."""

    name: str
    offset: int
    size: int
    why: str = ""


def members(path: Path) -> list[Member]:
    """Its files in their order; the last one says so where the rest is damaged. DataError if it is no tar file."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return _members(path, handle, os.fstat(handle).st_size)
    finally:
        os.close(handle)


def _members(path: Path, handle: int, whole: int) -> list[Member]:
    found: list[Member] = []
    offset, told = 0, dict[str, str]()
    while True:
        head = os.pread(handle, BLOCK, offset)
        if not whole:
            raise DataError(f"{path}: is empty")
        if offset == 0 and (len(head) < BLOCK or not _is_header(head)):
            packed = " (unpack it first: places in a packed file cannot be found)" if head[:2] == b"\x1f\x8b" else ""
            raise DataError(f"{path}: is not a tar file{packed}")
        if not head.strip(b"\0"):
            return found
        size = _number(head[124:136]) if len(head) == BLOCK and _is_header(head) else None
        if size is None:
            return [*found, Member(f"byte {offset}", offset, 0, "the archive is damaged from here on")]
        sort, name = head[156:157], (told.get("path") or _name(head))[:NAME]
        start = offset + BLOCK
        if "size" in told:
            size = int(told["size"])
        if sort in (b"L", b"x", b"X", b"g", b"K"):
            if size > LONGEST or start + size > whole:
                return [*found, Member(f"byte {offset}", offset, 0, f"a header of {size:,} bytes")]
            if sort in (b"L", b"x", b"X"):
                told |= _told(sort, os.pread(handle, size, start))
            offset = start + -(-size // BLOCK) * BLOCK
            continue
        sparse, told = "sparse" in told, {}
        if sort in (b"1", b"2", b"3", b"4", b"5", b"6"):
            size = 0
        if start + size > whole:
            return [*found, Member(name, start, 0, f"is cut off: {size:,} bytes are told, {whole - start:,} are there")]
        if sort in KINDS:
            found.append(Member(name, start, 0, f"is {KINDS[sort]}, and not read"))
        elif sparse:
            found.append(Member(name, start, 0, "is a sparse file, and not read"))
        elif sort != b"5":
            found.append(Member(name, start, size))
        offset = start + -(-size // BLOCK) * BLOCK


def _is_header(head: bytes) -> bool:
    told = _number(head[148:156])
    return told is not None and told == sum(head[:148]) + 8 * 32 + sum(head[156:])


def _number(field: bytes) -> int | None:
    """Octal digits, or a large number in base 256."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.rstrip(b" \0").lstrip(b" ")
    return int(digits or b"0", 8) if not digits.strip(b"01234567") else None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _name(head: bytes) -> str:
    prefix = _text(head[345:500]) if head[257:263] == b"ustar\0" else ""
    return f"{prefix}/{_text(head[:100])}" if prefix else _text(head[:100])


def _told(sort: bytes, content: bytes) -> dict[str, str]:
    """The name and the size that a header tells of the one behind it, and whether it is sparse."""
    if sort == b"L":
        return {"path": _text(content)}
    found: dict[str, str] = {}
    while content:
        length, space, _ = content.partition(b" ")
        if not space or not length.isdigit() or len(length) > 6 or not len(length) + 1 < int(length) <= len(content):
            return found
        record, content = content[len(length) + 1 : int(length) - 1], content[int(length) :]
        name, _, value = record.partition(b"=")
        if name == b"path":
            found["path"] = value.decode("utf-8", "backslashreplace").replace("\0", "\\0")
        elif name == b"size" and value.isdigit() and len(value) < 20:
            found["size"] = value.decode()
        elif name.startswith(b"GNU.sparse."):
            found["sparse"] = "yes"
    return found


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

    def ending(self, part: int) -> str:
        return self.endings[int(self.codes[part])]

    def why(self, part: int) -> str:
        """Why a part cannot be read."""
        return self.whys[int(np.count_nonzero(self.sizes[:part] < 0))]


def contents(path: Path, about: tuple[str, ...]) -> Contents:
    """Those of a tar file; `about`: endings of what a sample is about, the first that it has."""
    samples: dict[str, list[tuple[str, int, int, str]]] = {}
    seen: set[tuple[str, str]] = set()
    for name, offset, size, why in members(path):
        folder, slash, last = name.rpartition("/")
        stem, dot, ending = last.partition(".")
        if why or (dot and stem):
            key = f"{folder}{slash}{stem}"
            parts = samples.setdefault(key, [])
            if (key, ending.lower()) in seen:
                why = f"holds two files that end in .{ending.lower()}"
            seen.add((key, ending.lower()))
            parts.append((ending.lower(), offset, -1 if why else size, why))
    handle = os.open(path, os.O_RDONLY)
    try:
        hashes = [_hash(handle, parts, about) for parts in samples.values()]
    finally:
        os.close(handle)
    parts = [part for some in samples.values() for part in some]
    codes = {ending: code for code, ending in enumerate(dict.fromkeys(part[0] for part in parts))}
    return Contents(
        Words.of(samples),
        np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 16),
        np.array([seed_of("held out", one.hex()) for one in hashes], np.int64),
        np.cumsum([0, *map(len, samples.values())]),
        Words.of(codes),
        np.array([codes[part[0]] for part in parts], np.int32),
        np.array([part[1] for part in parts], np.int64),
        np.array([part[2] for part in parts], np.int64),
        Words.of(part[3] for part in parts if part[2] < 0),
    )


def _hash(handle: int, parts: list[tuple[str, int, int, str]], about: tuple[str, ...]) -> bytes:
    readable = [part for part in parts if part[2] >= 0]
    chosen = [part for ending in about for part in readable if part[0] == ending][:1] or readable
    digest = hashlib.blake2b(digest_size=16)
    for _, offset, size, _ in chosen:
        digest.update(os.pread(handle, min(size, HASHED), offset) + b"%d" % size)
    return digest.digest()


def known(mark: str) -> Path:
    """Where the contents of a file are kept once they were looked up; `mark` changes when the file does."""
    return base() / "tar" / f"{hashlib.sha256(mark.encode()).hexdigest()[:24]}.npz"


def recall(path: Path, size: int) -> Contents | None:
    """Contents that were kept, if they are whole and fit a file of this size."""
    try:
        with np.load(path, allow_pickle=False) as file:
            parts: Any = [Words(file[name]) if name in WORDS else file[name] for name in Contents._fields]
            found = Contents(*parts)
        samples, count = len(found.keys), len(found.offsets)
        fits = found.hashes.shape == (samples, 16) and found.places.shape == (samples,)
        fits = fits and found.firsts.shape == (samples + 1,) and found.firsts[0] == 0
        fits = fits and found.firsts[-1] == count == len(found.sizes) == len(found.codes)
        fits = fits and bool(((found.codes >= 0) & (found.codes < len(found.endings))).all())
        fits = fits and np.count_nonzero(found.sizes < 0) == len(found.whys)
        fits = fits and bool((np.diff(found.firsts) > 0).all())
        fits = fits and bool(((found.offsets >= 0) & (found.offsets + found.sizes <= size)).all())
        return found if fits else None
    except Exception:  # a damaged file may raise anything: it is made again
        return None


def keep(path: Path, found: Contents) -> None:
    """Keep contents for the next time, if there is a place for it."""
    buffer = io.BytesIO()
    told: dict[str, Any] = {name: value.content if name in WORDS else value for name, value in found._asdict().items()}
    np.savez(buffer, **told)
    with suppress(OSError):
        write_atomic(path, buffer.getvalue())
