"""What payloads are written with: pickles that run code, run folders, recipes, pictures and tars."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sevenfold.conformance.fault._kit import small
from sevenfold.core.files import MANIFEST, read_json, write_manifest
from sevenfold.core.part import find
from sevenfold.data.recognise import recognise
from sevenfold.data.source._tarred import packed
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe
from sevenfold.training.run import train

Action = Callable[[], Any]
Payload = Callable[[Path, Path], Action]
GIGABYTES = 4
"""What bombs unfold to."""


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def evil(mark: Path) -> bytes:
    """A pickle that creates `mark`."""
    return pickle.dumps(Evil(mark))


def read_all(path: Path, **settings: Any) -> Action:
    """What is done with data: recognised or named, built, split, read."""

    def action() -> None:
        source = (find("source", settings["kind"]).Config(path=str(path)) if settings else recognise(path)).build()
        source.split()
        for index in range(len(source)):
            source[index]

    return action


def run_folder(folder: Path) -> Path:
    """A run folder, copied from one that was trained once."""
    whole = folder.parent.parent / "whole run"
    if not whole.exists():
        train(small(steps=1), whole, say=lambda line: None, bar=False)
    shutil.copytree(whole, folder / "run")
    return folder / "run"


def exchanged(run: Path, name: str, content: bytes) -> None:
    """Another content for a file of a run, and a manifest that says so."""
    (run / name).write_bytes(content)
    write_manifest(run, list(read_json(run / MANIFEST)["files"]))


def recipe_of(folder: Path, text: str) -> Action:
    (folder / "recipe.yaml").write_text(text)
    return lambda: prepare(read_recipe(folder / "recipe.yaml"), note=lambda line: None)


def png(width: int, height: int, data: bytes) -> bytes:
    """A grey picture that says this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    facts = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", facts) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tar(path: Path, files: dict[str, bytes], more: bytes = b"") -> Path:
    """A tar of these files, and of `more` as it stands before its end."""
    path.write_bytes(packed(files, more))
    return path


def tar_header(kind: bytes, size: int = 0, link: str = "") -> bytes:
    found = tarfile.TarInfo("evil.txt")
    found.type, found.size, found.linkname = kind, size, link
    return found.tobuf(tarfile.GNU_FORMAT)
