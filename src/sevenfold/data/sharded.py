"""A folder of tokens: what `sevenfold prepare` writes and the source `shards` reads.

    manifest.json           what the tokens are, how many, and size and SHA-256 of each other file
    tokenizer/              the tokenizer's files
    train-00000.npy …       ids of the training samples laid end to end, [n] uint16 (uint32 beyond 65,536 ids); held_out-… likewise
    train.samples.npy       where each sample begins, [samples] int64; train.documents.npy: where each document does
    bad_samples.jsonl       the samples that could not be read, if any

Every file is written aside, synced, hashed and renamed, and the folder gets its name when all are there.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from sevenfold.core import part
from sevenfold.core.errors import CheckpointError, DataError
from sevenfold.core.files import MANIFEST, read_json, verify_manifest, write_atomic
from sevenfold.data.line import Files, Line, mapped

FORMAT = "sevenfold shards"
PARTS = ("train", "held_out")
LISTED = "bad_samples.jsonl"
MOST = 1 << 50
"""No count in an index may be larger."""


class Shard(part.Config):
    """One file of ids."""

    name: str = Field(pattern=r"^(train|held_out)-[0-9]{5,9}\.npy$")
    """The file."""
    tokens: int = Field(ge=1, le=MOST)
    """How many ids it holds."""


class Side(part.Config):
    """What is trained on, or what is held out."""

    samples: int = Field(ge=0, le=MOST)
    """Samples that could be read."""
    documents: int = Field(ge=0, le=MOST)
    """Documents that they are of."""
    tokens: int = Field(ge=0, le=MOST)
    """Ids in all."""
    shards: tuple[Shard, ...] = ()
    """The files, in order."""


class Index(part.Config):
    """What a folder of tokens says of itself."""

    format: Literal["sevenfold shards"] = "sevenfold shards"
    """What it is."""
    version: Literal[1] = 1
    """Of the layout."""
    field: str
    """The field of the data that was made into tokens."""
    stream: dict[str, Any]
    """Settings of the stream: kind, tokenizer (whole), ends, begin."""
    ids: int = Field(ge=1, le=1 << 32)
    """How many ids the tokenizer has."""
    source: dict[str, Any]
    """The settings of the data that it was made of."""
    made_of: str = ""
    """What tells this preparation from others: settings and files."""
    train: Side
    """To train on."""
    held_out: Side
    """Never trained on."""
    bad: int = Field(0, ge=0)
    """Samples that could not be read (bad_samples.jsonl lists the first)."""
    files: dict[str, Any]
    """File → size and SHA-256."""


class Written(NamedTuple):
    """A file that was written: its bytes and their hash."""

    size: int
    sha256: str


def write_array(path: Path, array: np.ndarray) -> Written:
    """Write a .npy file whole or not at all; the hash is of what was meant to be written."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    content = buffer.getvalue()
    write_atomic(path, content)
    return Written(len(content), hashlib.sha256(content).hexdigest())


def read_index(folder: Path, verify: bool) -> Index:
    """The index of a folder of tokens. Sizes of all files are checked, and their hashes if `verify`; DataError names the file
    that is missing, cut or changed, or the field that is wrong."""
    index = told_index(folder)
    try:
        if verify:
            verify_manifest(folder)
    except CheckpointError as error:
        raise DataError(str(error)) from None
    for name, size in sorted(sizes_of(folder, index).items()):
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path}: is missing: copy or prepare the folder again")
        if path.stat().st_size != size:
            raise DataError(f"{path}: has {path.stat().st_size} bytes instead of {size}: copy or prepare it again")
    return index


def told_index(folder: Path) -> Index:
    """What a folder's manifest says; its other files need not be there."""
    try:
        facts = read_json(folder / MANIFEST)
    except CheckpointError as error:
        raise DataError(str(error)) from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise DataError(f"{folder}: is no folder that `sevenfold prepare` wrote (its {MANIFEST} is of something else)")
    return part.decode(Index, facts, str(folder / MANIFEST))


def sizes_of(folder: Path, index: Index) -> dict[str, int]:
    """The files that an index needs, and how many bytes each has."""
    sizes = {}
    for name in [f"{side}.{what}.npy" for side in PARTS for what in ("samples", "documents")] + shards_of(index):
        fact = index.files.get(name)
        size = fact.get("size") if isinstance(fact, dict) else None
        if type(size) is not int:
            raise DataError(f"{folder / MANIFEST}: files: does not name {name}")
        sizes[name] = size
    return sizes


def shards_of(index: Index) -> list[str]:
    """The files of ids."""
    return [shard.name for side in (index.train, index.held_out) for shard in side.shards]


def read_side(folder: Path, index: Index, name: str, files: Files) -> tuple[Line, np.ndarray]:
    """(the ids of one side, which `files` opens; where each sample begins)."""
    side: Side = getattr(index, name)
    samples, documents = (mapped(folder / f"{name}.{what}.npy") for what in ("samples", "documents"))
    for what, found, count in (("samples", samples, side.samples), ("documents", documents, side.documents)):
        if len(found) != count or found.dtype != np.int64:
            raise DataError(f"{folder / f'{name}.{what}.npy'}: holds {len(found):,} places instead of {count:,}")
        if count and (found[0] != 0 or found[-1] > side.tokens or not _rising(found)):
            raise DataError(f"{folder / f'{name}.{what}.npy'}: its places are not in order from 0 to {side.tokens:,}")
    if sum(shard.tokens for shard in side.shards) != side.tokens:
        raise DataError(f"{folder / MANIFEST}: {name}: its shards do not hold {side.tokens:,} tokens together")
    paths = [folder / shard.name for shard in side.shards]
    if len(set(paths)) < len(paths):
        raise DataError(f"{folder / MANIFEST}: {name}: a shard is listed twice")
    return Line(paths, [shard.tokens for shard in side.shards], documents, files), samples


def _rising(places: np.ndarray, some: int = 1 << 22) -> bool:
    """Whether none is before the one that it follows; looked at piece by piece, for there may be very many."""
    return all((np.diff(places[start : start + some + 1]) >= 0).all() for start in range(0, len(places), some))
