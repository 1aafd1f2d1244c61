"""A folder of files that lies elsewhere (s3://, gs://, https://, …), read through fsspec: what it holds its manifest says, and each file
is checked on its way. A transfer that breaks is tried again.

What is brought is kept in SEVENFOLD_DATA, by default the user's cache folder: what a manifest says beside it in a folder of its hash, so
that a set that changes meanwhile is another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from sevenfold.core.errors import DataError
from sevenfold.core.files import MANIFEST, sha256, write_atomic
from sevenfold.core.locks import locked

LARGEST = 64 << 20
"""Bytes of a manifest."""
PIECE = 8 << 20
"""Bytes that are fetched at a time."""
PAUSES = (0.2, 1.0, 5.0)
"""Seconds before a broken transfer is tried again."""
KEYS = re.compile(r"(?<=//)[^/\s]*@|[?][^/\s]*=\S*")
"""What of a URL in a message is not told."""
HASH = re.compile("[0-9a-f]{64}")
AT_ONCE = 16
"""Files that are looked up at the same time."""
STALE = 30 * 24 * 3600
"""Seconds after which what was kept of a manifest goes, if another one took its place."""
LONGEST = 200
"""Bytes of a file's name."""
SAME = ("ETag", "etag", "md5Hash", "Content-MD5", "Digest", "checksum", "crc32c")
TIMES = ("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "modified", "created")
"""What tells that a file is the same as before, by any of the names that places give it."""
T = TypeVar("T")
U = TypeVar("U")
Fact = dict[str, Any]
"""size and sha256 of a file; the latter may be None."""


class Unusable(DataError):
    """What is read, or the folder that it is brought to, cannot be used: trying again does not help."""


class _Broken(Exception):
    """Reading broke off, by an error of the place that is read."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error


def shown(path: str) -> str:
    """A path as it may be told to others: a URL without its user, password and query, where keys stand."""
    scheme, there, rest = path.partition("://")
    if not there:
        return path
    host, slash, name = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{re.sub(r'[?][^/]*=.*', '', name, flags=re.DOTALL)}"


def hidden(settings: Any) -> Any:
    """Plain settings with each URL in them as it may be told to others."""
    if isinstance(settings, Mapping):
        return {name: hidden(value) for name, value in settings.items()}
    if isinstance(settings, list):
        return [hidden(value) for value in settings]
    return shown(settings) if isinstance(settings, str) else settings


def base() -> Path:
    """The folder for what is kept of data on this machine."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "sevenfold", "data")
    return Path(os.environ.get("SEVENFOLD_DATA") or usual).expanduser()


def home(path: str) -> Path:
    """Where files of a URL are kept."""
    return base() / hashlib.sha256(path.rstrip("/").encode()).hexdigest()[:24]


def begin(path: str) -> tuple[Path, dict[str, Fact]]:
    """(the folder for what is brought from a URL, that of its manifest; the files that are there): the manifest is brought."""
    path = path.rstrip("/")
    if "::" in path:
        raise DataError(f"{shown(path)}: one place, not one behind another (::)")
    content = tried(f"{path}/{MANIFEST}", lambda: small(f"{path}/{MANIFEST}", LARGEST))
    files = _files(path, content)
    folder = home(path) / hashlib.sha256(content).hexdigest()[:24]
    with usable(folder):
        kept = folder / MANIFEST
        if not kept.is_file() or kept.read_bytes() != content:
            write_atomic(kept, content)
        os.utime(kept)
    for other in home(path).glob(f"*/{MANIFEST}"):
        with suppress(OSError):
            if time.time() - other.stat().st_mtime > STALE:
                shutil.rmtree(other.parent, ignore_errors=True)
    return folder, files


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """What goes wrong with the files here is said in one line that names the folder."""
    try:
        yield
    except OSError as error:
        raise Unusable(
            f"{folder}: cannot be used for what is brought: {error.strerror or error}: make room, or name another folder in SEVENFOLD_DATA"
        ) from None


def bring(path: str, folder: Path, files: dict[str, Fact], names: Iterable[str]) -> None:
    """Bring some files, those that are not here yet."""
    for name in names:
        with usable(folder), locked(folder / ".locks" / name.replace("/", "-")):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            brought(f"{path.rstrip('/')}/{name}", target, files[name], False, partial(_aside, target))


def _aside(target: Path) -> Path:
    return target.with_name(f".tmp-{target.name}-{secrets.token_hex(4)}")


def brought(where: str, target: Path, fact: Fact, trusted: bool, aside: Callable[[], Path]) -> None:
    """Bring a file whose lock is held, unless it is here and whole. `trusted`: its size alone tells that; `aside`: makes the file that it
    is brought to before it has its name."""
    if target.is_file() and target.stat().st_size == fact["size"] and (trusted or sha256(target) == fact["sha256"]):
        return
    partly = aside()
    try:
        fetch(where, partly, fact)
        os.replace(partly, target)
    finally:
        partly.unlink(missing_ok=True)


def fetch(where: str, into: Path, fact: Fact) -> None:
    """Bring one file, which must be as its manifest says; where there is none (sha256 None) of the size that it is told to have."""

    def once() -> None:
        digest, size = hashlib.sha256(), 0
        with opened(where) as source, usable(into.parent), open(into, "r+b" if into.exists() else "wb") as file:
            while size <= fact["size"] and (part := piece(source)):
                digest.update(part)
                file.write(part)
                size += len(part)
            file.flush()
            os.fsync(file.fileno())
        if fact["sha256"] is None and size != fact["size"]:
            raise DataError(f"{shown(where)}: has {size:,} bytes or more, and {fact['size']:,} when it was looked up")
        if size != fact["size"] or fact["sha256"] not in (None, digest.hexdigest()):
            raise DataError(
                f"{shown(where)}: is not as its manifest or index says (size or SHA-256 differs): make it or copy it again"
            )

    tried(where, once)


def piece(source: Any) -> bytes:
    """The next bytes of an open file."""
    try:
        return bytes(source.read(PIECE))
    except Exception as error:  # each file system has errors of its own
        raise _Broken(error) from None


def tried(where: str, attempt: Callable[[], Any]) -> Any:
    """What an attempt gives; DataError, one line, where it fails again and again, or at once where a file is not there."""
    for pause in (*PAUSES, None):
        try:
            return attempt()
        except Exception as error:  # each file system has errors of its own
            why = error.error if isinstance(error, _Broken) else error
            gone = isinstance(why, FileNotFoundError | PermissionError | ImportError | ValueError)
            if pause is None or gone or isinstance(why, Unusable):
                if isinstance(why, DataError):
                    raise
                if isinstance(why, FileNotFoundError):
                    raise DataError(f"{shown(where)}: there is no such file, or nobody answers there") from None
                told = "" if gone else f" in {len(PAUSES) + 1} tries"
                said = KEYS.sub("", (str(why) or repr(why)).splitlines()[0])
                raise DataError(f"{shown(where)}: cannot be read{told}: {said}") from None
            time.sleep(pause)


def listed(urls: Sequence[str]) -> list[tuple[str, int, str]]:
    """(the URL of a file, its size, what changes with its content), those of a pattern with * spelled out."""
    found: list[tuple[str, int, str]] = []
    for url, some in zip(urls, at_once(lambda url: tried(url, partial(_look, url)), urls)):
        if not some:
            raise DataError(f"{shown(url)}: there are no such files")
        found += some
    return found


def at_once(make: Callable[[T], U], things: Iterable[T]) -> Iterator[U]:
    """What is made of each thing, in order, several at the same time."""
    threads = ThreadPoolExecutor(AT_ONCE)
    try:
        yield from threads.map(make, things)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _look(url: str) -> list[tuple[str, int, str]]:
    system, name = _fsspec(url).core.url_to_fs(url)
    magic = any(letter in name for letter in "*[") or "?" in name and "=" not in name.rpartition("?")[2]
    found = []
    told: dict[str, Any] = system.glob(name, detail=True) if magic else {name: {}}
    for one, info in sorted(told.items()):
        if type(info.get("size")) is not int or not _mark(info):
            info = system.info(one)
        if type(info["size"]) is not int:
            raise ValueError("the server does not tell how long it is")
        found.append((system.unstrip_protocol(one) if magic else url, info["size"], _mark(info)))
    return found


def _mark(info: Mapping[str, Any]) -> str:
    """What changes when a file does; nothing where its place tells nothing."""
    return next((f"{name} {info[name]}" for name in (*SAME, *TIMES) if info.get(name)), "")


def _fsspec(where: str) -> Any:
    try:
        import fsspec
    except ImportError:
        raise DataError(f"{shown(where)}: pip install fsspec, which reads such places") from None
    return fsspec


def opened(where: str) -> Any:
    """A file at a URL, opened for reading; DataError where fsspec is missing. The file system is that of this process: what is open
    in another one is not shared."""
    system, name = _fsspec(where).core.url_to_fs(where)  # fsspec names the package that a protocol needs
    return system.open(name, "rb")


def small(where: str, largest: int) -> bytes:
    """A file of that many bytes at most."""
    with opened(where) as file:
        content = bytes(file.read(largest + 1))
    if len(content) > largest:
        raise DataError(f"{shown(where)}: larger than {largest:,} bytes")
    return content


def _files(path: str, content: bytes) -> dict[str, Fact]:
    """The files that a manifest names, each inside the folder."""
    try:
        files = json.loads(content)["files"]
        for name, fact in files.items():
            place = PurePosixPath(name)
            plain = str(place) == name and name.isprintable() and "\\" not in name and len(name.encode()) <= LONGEST
            if not plain or name in (MANIFEST, ".") or place.is_absolute() or any(p[0] == "." for p in place.parts):
                raise ValueError(f"{name[:LONGEST]!r} is no file of this folder")
            if any(str(above) in files for above in place.parents):
                raise ValueError(f"{name!r} is inside of a file")
            if type(fact["size"]) is not int or fact["size"] < 0 or not HASH.fullmatch(fact["sha256"]):
                raise ValueError(f"{name!r} has no size and hash")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{shown(path)}/{MANIFEST}: is not the manifest of prepared data: {error}") from None
    found: dict[str, Fact] = files
    return found
