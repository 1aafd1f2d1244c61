"""What the sources share about files: bytes with a limit, decompressed or not, and the files of a folder."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sevenfold.core.errors import BadSample, DataError
from sevenfold.data.source import Source, suffix

LARGEST = 1 << 30
"""Bytes of data that are held in memory unless a recipe says otherwise."""
HEAD = 1 << 16
"""Bytes that are looked at to tell what a file is."""
LOOKED_AT = 20
"""Files of a folder that may be damaged, the first ones, before it is refused."""


def expands_to(size: int, largest: int) -> int:
    """The most bytes that `size` compressed ones may become: `largest`, and no more than 20-fold beyond 64 MiB."""
    return min(largest, max(64 << 20, 20 * size))


@contextmanager
def within_memory(most: int) -> Iterator[None]:
    """Inside of it this process may take so many bytes more, and is refused what is beyond them: for libraries that take memory because
    a damaged file says so. Where the system knows no such limit (it is Linux's), nothing is limited."""
    try:
        import resource

        held = re.search(r"VmData:\s*(\d+) kB", Path("/proc/self/status").read_text())
        before = resource.getrlimit(resource.RLIMIT_DATA)
    except (ImportError, OSError):
        held = None
    if held is None:
        yield
        return
    allowed = int(held[1]) * 1024 + most
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (allowed if before[0] < 0 else min(allowed, before[0]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def read_bytes(path: Path, largest: int) -> bytes:
    """A file's bytes, decompressed if it is a .gz. DataError if it is missing, empty, damaged or larger than that."""
    data = read_any(path, largest)
    if not data.strip():
        raise DataError(f"{path}: is empty")
    return data


def read_any(path: Path, largest: int) -> bytes:
    """The same of a file that may be empty."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise DataError(f"{path}: is a folder; give a file of it")
        packed = path.suffix.lower() == ".gz"
        most = expands_to(size, largest) if packed else largest
        if size > most:
            raise too_large(path, size, most)
        with gzip.open(path) if packed else open(path, "rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: the .gz file is damaged ({error}): copy or download it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(data) > most:
        raise too_large(path, len(data), most)
    return data.removeprefix(b"\xef\xbb\xbf")


def too_large(path: Path, size: int, most: int) -> DataError:
    """The error for a file that would take more memory than is allowed."""
    return DataError(
        f"{path}: holds {size:,} bytes or more, and {most:,} are allowed: split it, or unpack it and raise largest_bytes"
    )


class OnDisk:
    """A file's bytes, read when they are asked for: what the sources of text need of `bytes`."""

    def __init__(self, path: Path):
        self.path, self.first = path, 0
        self.size = path.stat().st_size
        self.first = 3 if self[:3] == b"\xef\xbb\xbf" else 0

    def __len__(self) -> int:
        return self.size - self.first

    def __getitem__(self, span: slice) -> bytes:
        start, stop, _ = span.indices(len(self))
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self.first + start)
                return file.read(max(stop - start, 0))
        except OSError as error:
            raise BadSample(str(self.path), f"cannot be read: {error.strerror or error}") from None

    def rfind(self, found: bytes, low: int, high: int) -> int:
        place = self[low:high].rfind(found)
        return low + place if place >= 0 else -1

    def lines(self, longest: int) -> Iterator[tuple[int, bytes]]:
        """(where it begins, its bytes, of which no more than `longest` and one) of each line."""
        with open(self.path, "rb") as file:
            place = file.seek(self.first)
            while line := file.readline(longest + 1):
                length = len(line)
                while len(line) > longest and not line.endswith(b"\n") and (more := file.readline(longest + 1)):
                    length, line = length + len(more), line[:longest] + more[-1:]
                yield place - self.first, line
                place += length


Bytes = bytes | OnDisk


def head_of(path: Path) -> bytes:
    """The first bytes of a file, decompressed; none if it cannot be read."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as file:
            return file.read(HEAD)
    except (OSError, EOFError, zlib.error):
        return b""


def not_text(data: Bytes) -> str:
    """Why these bytes are not UTF-8 text, or nothing."""
    head = data[:HEAD]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "is UTF-16 text: save it as UTF-8"
    if b"\0" in head:
        return f"is not text (a NUL byte at offset {head.index(0)})"
    shown = head.decode("utf-8", "replace")
    if shown.count("\ufffd") > 0.3 * len(shown):
        return "is not UTF-8 text (most of its bytes are not characters)"
    return ""


def list_files(folder: Path, suffixes: Collection[str] | None = None) -> list[Path]:
    """The files in a folder and the folders in it, hidden ones aside, in the order a person would count them."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and (suffixes is None or suffix(path) in suffixes) and path.is_file():
                found.append(path)
    return sorted(found, key=lambda path: natural(path.relative_to(folder)))


def check_first(source: Source, root: Path, things: str) -> None:
    """DataError if `root` is an empty file, or none of the first few samples of a folder can be read."""
    if root.is_file():
        if not root.stat().st_size:
            raise DataError(f"{root}: is empty")
        return
    problems = []
    for index in range(min(len(source), LOOKED_AT)):
        try:
            source[index]
            return
        except BadSample as error:
            problems.append(str(error))
    if problems:
        raise DataError(f"{root}: none of the first {len(problems)} {things} can be read: {problems[0]}")


def natural(path: Path) -> tuple[Any, ...]:
    """A key that sorts 2.png before 10.png, folder by folder."""
    return tuple(
        tuple((int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"([0-9]+)", part))
        for part in path.parts
    )
