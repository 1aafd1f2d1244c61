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
import sys
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
        elif sort != b"5" and "\0" not in name:
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
            found["path"] = value.decode("utf-8", "backslashreplace")
        elif name == b"size" and value.isdigit() and len(value) < 20:
            found["size"] = value.decode()
        elif name.startswith(b"GNU.sparse."):
            found["sparse"] = "yes"
    return found


class Contents(NamedTuple):
    """Where the parts of each sample are. Files of one stem (the name up to the first dot behind the last slash) are one sample.

    keys     the stem of each sample, in their order (lists, not arrays: one long name must not make all long)
    hashes   of what each sample is about, [samples, 16] bytes; places: what they are held out by, [samples] int64
    firsts   [samples + 1]: sample i has the parts firsts[i] … firsts[i + 1]
    endings  of each part, lower case
    offsets, sizes  of each part; a size below 0: it cannot be read
    whys     of such a part, "" of others
    """

    keys: list[str]
    hashes: np.ndarray
    places: np.ndarray
    firsts: np.ndarray
    endings: list[str]
    offsets: np.ndarray
    sizes: np.ndarray
    whys: list[str]


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
    return Contents(
        list(samples),
        np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 16),
        np.array([seed_of("held out", one.hex()) for one in hashes], np.int64),
        np.cumsum([0, *map(len, samples.values())]),
        [sys.intern(part[0]) for part in parts],
        np.array([part[1] for part in parts], np.int64),
        np.array([part[2] for part in parts], np.int64),
        [part[3] for part in parts],
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
            parts: Any = [_words(file[name]) if name in WORDS else file[name] for name in Contents._fields]
            found = Contents(*parts)
        samples, count = len(found.keys), len(found.offsets)
        fits = found.hashes.shape == (samples, 16) and found.places.shape == (samples,)
        fits = fits and found.firsts.shape == (samples + 1,) and found.firsts[0] == 0
        fits = fits and found.firsts[-1] == count == len(found.sizes) == len(found.endings) == len(found.whys)
        fits = fits and bool((np.diff(found.firsts) > 0).all())
        fits = fits and bool(((found.offsets >= 0) & (found.offsets + found.sizes <= size)).all())
        return found if fits else None
    except Exception:  # a damaged file may raise anything: it is made again
        return None


def keep(path: Path, found: Contents) -> None:
    """Keep contents for the next time, if there is a place for it."""
    buffer = io.BytesIO()
    told: dict[str, Any] = {name: _bytes(value) if name in WORDS else value for name, value in found._asdict().items()}
    np.savez(buffer, **told)
    with suppress(OSError):
        write_atomic(path, buffer.getvalue())


def _bytes(words: list[str]) -> np.ndarray:
    """Words, none with a NUL in it, as bytes."""
    return np.frombuffer("".join(f"{word}\0" for word in words).encode(), np.uint8)


def _words(content: np.ndarray) -> list[str]:
    return [sys.intern(word) for word in content.tobytes().decode().split("\0")[:-1]]
