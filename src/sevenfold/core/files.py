"""Writing files so that nobody ever sees half of one, and knowing later whether they are still whole."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sevenfold.core.errors import CheckpointError

MANIFEST = "manifest.json"


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write a file under a temporary name beside it, sync it, then rename: old or new, never half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_file(path: str | Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: str | Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_by(path: Path) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def write_manifest(folder: str | Path, names: Iterable[str], **facts: Any) -> None:
    """Record size and hash of each named file of a folder in its manifest.json."""
    folder = Path(folder)
    _write_manifest(folder, {name: known_by(folder / name) for name in names}, facts)


def _write_manifest(folder: Path, files: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    listed = {name: files[name] for name in sorted(files)}
    write_atomic(folder / MANIFEST, json.dumps({**facts, "files": listed}, indent=1) + "\n")


def verify_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder whose files are all there and unchanged; CheckpointError names the first that is not."""
    folder = Path(folder)
    manifest = read_json(folder / MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not files:
        raise CheckpointError(f"{folder / MANIFEST}: names no files")
    for name, fact in files.items():
        path = folder / name
        if not _inside(folder, path) or not isinstance(fact, dict):
            raise CheckpointError(f"{folder / MANIFEST}: the entry {name!r} is not a file of this folder")
        if not path.is_file():
            raise CheckpointError(f"{path}: is missing")
        if path.stat().st_size != fact.get("size"):
            raise CheckpointError(f"{path}: has {path.stat().st_size} bytes instead of {fact.get('size')}")
        if sha256(path) != fact.get("sha256"):
            raise CheckpointError(f"{path}: its content has changed since it was written (SHA-256 differs)")
    return manifest


def _inside(folder: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def read_json(path: str | Path, largest: int = 64 << 20) -> Any:
    """JSON from a file; CheckpointError if it is missing, too large or not JSON."""
    path = Path(path)
    try:
        if path.stat().st_size > largest:
            raise CheckpointError(f"{path}: larger than {largest >> 20} MiB")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {str(error).splitlines()[0]}") from None


def temporary_of(final: Path) -> Path:
    """A new folder beside `final`, to be filled and then published under that name."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".tmp-{final.name}-{os.getpid()}-{secrets.token_hex(4)}")
    temporary.mkdir()
    return temporary


def publish(temporary: Path, final: Path, files: Mapping[str, Any], **facts: Any) -> None:
    """Rename a folder that is filled; `files`: name → what `known_by` says of it, synced already."""
    _write_manifest(temporary, files, facts)
    for folder in {(temporary / name).parent for name in files} | {temporary}:
        sync_folder(folder)
    os.rename(temporary, final)
    sync_folder(final.parent)


def publish_folder(final: Path, fill: Callable[[Path], Iterable[str]], **facts: Any) -> None:
    """Make a folder appear under its final name only when it is whole.

    `fill(temporary)` writes files and returns their names; they are synced, given a manifest, and the folder is renamed.
    """
    temporary = temporary_of(final)
    try:
        names = list(fill(temporary))
        for name in names:
            sync_file(temporary / name)
        publish(temporary, final, {name: known_by(temporary / name) for name in names}, **facts)
    except BaseException:
        remove_folder(temporary)
        raise


def remove_folder(folder: Path) -> None:
    """Remove a folder of ours, renamed out of the way first so that nobody reads half of it."""
    if folder.exists():
        doomed = (
            folder
            if folder.name.startswith(".tmp-")
            else folder.with_name(f".tmp-old-{folder.name}-{secrets.token_hex(4)}")
        )
        if doomed != folder:
            os.rename(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)
