"""A folder of files that lies elsewhere (s3://, gs://, https://, …), read through fsspec: what it holds its manifest says, and each file
is checked on its way. A transfer that breaks is tried again.

What is brought is kept in SEVENFOLD_DATA, by default the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from sevenfold.core.errors import DataError
from sevenfold.core.files import MANIFEST, sha256, write_atomic
from sevenfold.core.locks import locked

LARGEST = 64 << 20
"""Bytes of a manifest."""
PIECE = 8 << 20
"""Bytes that are fetched at a time."""
PAUSES = (0.2, 1.0, 5.0)
"""Seconds before a broken transfer is tried again."""
Fact = dict[str, Any]
"""size and sha256 of a file; the latter may be None."""


def base() -> Path:
    """The folder for what is kept of data on this machine."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "sevenfold", "data")
    return Path(os.environ.get("SEVENFOLD_DATA") or usual).expanduser()


def home(path: str) -> Path:
    """Where files of a URL are kept."""
    return base() / hashlib.sha256(path.encode()).hexdigest()[:24]


def begin(path: str) -> tuple[Path, dict[str, Fact]]:
    """(the folder for what is brought from a URL, the files that are there): its manifest is brought. What is here from another
    manifest goes."""
    if "::" in path:
        raise DataError(f"{path}: one place, not one behind another (::)")
    folder = home(path)
    content = tried(f"{path}/{MANIFEST}", lambda: _small(path))
    files = _files(path, content)
    try:
        before = _files(path, (folder / MANIFEST).read_bytes())
    except (OSError, DataError):
        before = {}
    for name in before:
        if before[name] != files.get(name):
            (folder / name).unlink(missing_ok=True)
    if before != files or not (folder / MANIFEST).is_file():
        write_atomic(folder / MANIFEST, content)
    return folder, files


def bring(path: str, folder: Path, files: dict[str, Fact], names: Iterable[str]) -> None:
    """Bring some files, those that are not here yet."""
    for name in names:
        with locked(folder / ".locks" / name.replace("/", "-")):
            target, fact = folder / name, files[name]
            if target.is_file() and target.stat().st_size == fact["size"] and sha256(target) == fact["sha256"]:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            partly = target.with_name(f".tmp-{target.name}-{secrets.token_hex(4)}")
            try:
                fetch(f"{path}/{name}", partly, fact)
                os.replace(partly, target)
            finally:
                partly.unlink(missing_ok=True)


def fetch(where: str, into: Path, fact: Fact) -> None:
    """Bring one file, which must be as its manifest says; where there is none (sha256 None) of the size that it is told to have."""

    def once() -> None:
        digest, size = hashlib.sha256(), 0
        with opened(where) as source, open(into, "r+b" if into.exists() else "wb") as file:
            while size <= fact["size"] and (piece := source.read(PIECE)):
                digest.update(piece)
                file.write(piece)
                size += len(piece)
            file.flush()
            os.fsync(file.fileno())
        if size != fact["size"] or fact["sha256"] not in (None, digest.hexdigest()):
            raise DataError(f"{where}: is not as its manifest says (size or SHA-256 differs): prepare or copy it again")

    tried(where, once)


def tried(where: str, attempt: Callable[[], Any]) -> Any:
    """What an attempt gives; DataError, one line, where it fails again and again, or at once where a file is not there."""
    for pause in (*PAUSES, None):
        try:
            return attempt()
        except Exception as error:  # each file system has errors of its own
            gone = isinstance(error, FileNotFoundError | ImportError | ValueError)
            if pause is None or gone:
                if isinstance(error, DataError):
                    raise
                if isinstance(error, FileNotFoundError):
                    raise DataError(f"{where}: there is no such file, or nobody answers there") from None
                told = "" if gone else f" in {len(PAUSES) + 1} tries"
                raise DataError(
                    f"{where}: cannot be read{told}: {(str(error) or repr(error)).splitlines()[0]}"
                ) from None
            time.sleep(pause)


def listed(urls: Sequence[str]) -> tuple[list[str], list[int]]:
    """(the URLs of files, those of a pattern with * spelled out; the size of each)."""
    names, sizes = [], []
    for url in urls:
        found = tried(url, partial(_look, url))
        if not found:
            raise DataError(f"{url}: there are no such files")
        names += [name for name, _ in found]
        sizes += [size for _, size in found]
    return names, sizes


def _look(url: str) -> list[tuple[str, int]]:
    fsspec = _fsspec(url)
    system, name = fsspec.core.url_to_fs(url)
    magic = any(letter in name for letter in "*?[")
    found = []
    for one in sorted(system.glob(name)) if magic else [name]:
        size = system.info(one)["size"]
        if type(size) is not int:
            raise ValueError("the server does not tell how long it is")
        found.append((system.unstrip_protocol(one) if magic else url, size))
    return found


def _fsspec(where: str) -> Any:
    try:
        import fsspec
    except ImportError:
        raise DataError(f"{where}: pip install fsspec, which reads such places") from None
    return fsspec


def opened(where: str) -> Any:
    """A file at a URL, opened for reading; DataError where fsspec is missing. The file system is that of this process: what is open
    in another one is not shared."""
    system, name = _fsspec(where).core.url_to_fs(where)  # fsspec names the package that a protocol needs
    return system.open(name, "rb")


def _small(path: str) -> bytes:
    with opened(f"{path}/{MANIFEST}") as file:
        content = bytes(file.read(LARGEST + 1))
    if len(content) > LARGEST:
        raise DataError(f"{path}/{MANIFEST}: larger than {LARGEST >> 20} MiB")
    return content


def _files(path: str, content: bytes) -> dict[str, Fact]:
    """The files that a manifest names, each inside the folder."""
    try:
        files = json.loads(content)["files"]
        for name, fact in files.items():
            parts = PurePosixPath(name).parts
            if not parts or name.startswith("/") or ".." in parts or "\\" in name or name == MANIFEST:
                raise ValueError(f"{name!r} is no file of this folder")
            if type(fact["size"]) is not int or fact["size"] < 0 or not isinstance(fact["sha256"], str):
                raise ValueError(f"{name!r} has no size and hash")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}/{MANIFEST}: is not the manifest of prepared data: {error}") from None
    found: dict[str, Fact] = files
    return found
