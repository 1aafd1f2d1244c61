"""A folder of tokens that lies elsewhere (s3://, gs://, https://, …), brought here file by file through fsspec and checked on its way.

It is kept in SEVENFOLD_DATA, by default the user's cache folder. Files that are there, as the manifest says, are not fetched again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from sevenfold.core.errors import DataError
from sevenfold.core.files import MANIFEST, sha256, write_atomic

LARGEST = 64 << 20
"""Bytes of a manifest."""
PIECE = 16 << 20
"""Bytes that are fetched at a time."""


def here(path: str) -> Path:
    """The local folder of a path: itself, or where what lies at a URL was brought."""
    if "://" not in path:
        return Path(path).expanduser()
    if "::" in path:
        raise DataError(f"{path}: one place, not one behind another (::)")
    base = os.environ.get("SEVENFOLD_DATA") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "sevenfold", "data")
    folder = Path(base).expanduser() / hashlib.sha256(path.encode()).hexdigest()[:24]
    opened = _opener(path)
    with opened(MANIFEST) as file:
        content = _read(f"{path}/{MANIFEST}", file, LARGEST + 1)
    if len(content) > LARGEST:
        raise DataError(f"{path}/{MANIFEST}: larger than {LARGEST >> 20} MiB")
    for name, fact in _files(path, content).items():
        target = folder / name
        if target.is_file() and target.stat().st_size == fact["size"] and sha256(target) == fact["sha256"]:
            continue
        _fetch(f"{path}/{name}", opened, name, target, fact)
    write_atomic(folder / MANIFEST, content)
    return folder


def _opener(path: str) -> Callable[[str], Any]:
    """What opens a file of the folder; DataError where the kind of place is unknown or needs a package."""
    try:
        import fsspec
    except ImportError:
        raise DataError(f"{path}: pip install fsspec, which reads such places") from None
    try:
        system, root = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:  # fsspec names the package that a protocol needs
        raise DataError(f"{path}: {str(error).splitlines()[0]}") from None

    def opened(name: str) -> Any:
        try:
            return system.open(f"{root.rstrip('/')}/{name}", "rb")
        except Exception as error:  # each system has errors of its own
            raise DataError(f"{path}/{name}: cannot be read: {(str(error) or repr(error)).splitlines()[0]}") from None

    return opened


def _read(where: str, file: Any, most: int) -> bytes:
    try:
        return bytes(file.read(most))
    except Exception as error:  # each system has errors of its own
        raise DataError(f"{where}: cannot be read: {(str(error) or repr(error)).splitlines()[0]}") from None


def _files(path: str, content: bytes) -> dict[str, dict[str, Any]]:
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
    found: dict[str, dict[str, Any]] = files
    return found


def _fetch(where: str, opened: Callable[[str], Any], name: str, target: Path, fact: dict[str, Any]) -> None:
    """Bring one file, under its name only when it is whole and as the manifest says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partly = target.with_name(f".tmp-{target.name}-{os.getpid()}-{secrets.token_hex(4)}")
    digest, size = hashlib.sha256(), 0
    try:
        with opened(name) as source, open(partly, "wb") as file:
            while size <= fact["size"] and (piece := _read(where, source, PIECE)):
                digest.update(piece)
                file.write(piece)
                size += len(piece)
            file.flush()
            os.fsync(file.fileno())
        if size != fact["size"] or digest.hexdigest() != fact["sha256"]:
            raise DataError(f"{where}: is not as its manifest says (size or SHA-256 differs): prepare or copy it again")
        os.replace(partly, target)
    finally:
        partly.unlink(missing_ok=True)
