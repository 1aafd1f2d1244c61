"""What a tar file holds, by offset: read from its headers alone, which are bounded, so that no file of it costs memory or time.

    header [512]: name 100 · mode, owner 24 · size 12 · time 12 · checksum 8 · type 1 · link 100 · "ustar" 8 … prefix 155 at 345
    content, padded to 512

POSIX.1-2001 (ustar and pax), and the long names and large sizes of GNU tar. Links, devices and sparse files are told as such. Python's
tarfile reads a header of any length into memory.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from sevenfold.core.errors import DataError
from sevenfold.data.remote import Unusable, piece

BLOCK = 512
LONGEST = 1 << 16
"""Bytes of a header that tells a name."""
NAME = 4096
"""Letters of a name that count."""
HASHED = 1 << 20
"""Bytes that the hash of a member is over."""
KINDS = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file"}


class Member(NamedTuple):
    """One file of it and the hash of its first MiB and its size, or why it cannot be read."""

    name: str
    offset: int
    size: int
    hash: bytes = b""
    why: str = ""


class Passed(Protocol):
    """What a file holds, once, from its begin on."""

    def read(self, size: int, /) -> bytes:
        """The next bytes; fewer where it ends."""

    def skip(self, size: int, /) -> None:
        """Leave out the next bytes."""


class Here:
    """A file of this machine: what is left out is not read."""

    def __init__(self, file: Any):
        self.read, self._seek = file.read, file.seek

    def skip(self, size: int) -> None:
        self._seek(size, io.SEEK_CUR)


class Streamed:
    """A file that comes from elsewhere, all of it, of which nothing is kept but its hash. DataError where it has another size."""

    def __init__(self, file: Any, whole: int, where: str):
        self.file, self.whole, self.where = file, whole, where
        self.digest, self.came, self._rest = hashlib.sha256(), 0, memoryview(b"")

    def read(self, size: int) -> bytes:
        return b"".join(self._parts(size))

    def skip(self, size: int) -> None:
        for _ in self._parts(size):
            pass

    def _parts(self, size: int) -> Iterator[memoryview]:
        while size > 0:
            self._rest = self._rest or memoryview(self._next())
            if not self._rest:
                return
            part, self._rest = self._rest[:size], self._rest[size:]
            size -= len(part)
            yield part

    def _next(self) -> bytes:
        found = piece(self.file)
        self.digest.update(found)
        self.came += len(found)
        if self.came > self.whole or not found and self.came < self.whole:
            raise DataError(f"{self.where}: gave {self.came:,} bytes, and has {self.whole:,} by what was told")
        return found

    def hash(self) -> bytes:
        """SHA-256 of the whole, of which the rest comes now."""
        while self._next():
            pass
        return self.digest.digest()


def members(file: Passed, whole: int, where: str) -> Iterator[Member]:
    """Its files in their order, read once from its begin on; the last one says so where the rest is damaged. `whole`: its bytes. Unusable
    if it is no tar file."""
    offset, told = 0, dict[str, str]()
    while True:
        head = file.read(BLOCK)
        if not whole:
            raise Unusable(f"{where}: is empty")
        if offset == 0 and (len(head) < BLOCK or not _is_header(head)):
            packed = " (unpack it first: places in a packed file cannot be found)" if head[:2] == b"\x1f\x8b" else ""
            raise Unusable(f"{where}: is not a tar file{packed}")
        if not head.strip(b"\0"):
            return
        size = _number(head[124:136]) if len(head) == BLOCK and _is_header(head) else None
        if size is None:
            yield Member(f"byte {offset}", offset, 0, why="the archive is damaged from here on")
            return
        sort, name = head[156:157], (told.get("path") or _name(head))[:NAME]
        start = offset + BLOCK
        if "size" in told:
            size = int(told["size"])
        if sort in (b"L", b"x", b"X", b"g", b"K"):
            if size > LONGEST or start + size > whole:
                yield Member(f"byte {offset}", offset, 0, why=f"a header of {size:,} bytes")
                return
            content = file.read(size)
            if sort in (b"L", b"x", b"X"):
                told |= _told(sort, content)
            offset = _behind(file, start, size, size)
            continue
        sparse, told = "sparse" in told, {}
        if sort in (b"1", b"2", b"3", b"4", b"5", b"6"):
            size = 0
        if start + size > whole:
            yield Member(name, start, 0, why=f"is cut off: {size:,} bytes are told, {whole - start:,} are there")
            return
        read = 0
        if sort in KINDS:
            yield Member(name, start, 0, why=f"is {KINDS[sort]}, and not read")
        elif sparse:
            yield Member(name, start, 0, why="is a sparse file, and not read")
        elif sort != b"5":
            read = min(size, HASHED)
            digest = hashlib.blake2b(file.read(read) + b"%d" % size, digest_size=16).digest()
            yield Member(name, start, size, digest)
        offset = _behind(file, start, size, read)


def _behind(file: Passed, start: int, size: int, read: int) -> int:
    """Where the header behind some content is, of which so many bytes were read: the file is there."""
    padded = -(-size // BLOCK) * BLOCK
    file.skip(padded - read)
    return start + padded


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


def packed(files: Mapping[str, bytes], more: bytes = b"") -> bytes:
    """A tar file of these; `more` stands before its end."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        end = archive.offset
    whole = buffer.getvalue()
    return whole[:end] + more + whole[end:]
