"""A source: files of one format, read as samples in a fixed order. A sample is a dict from field names to raw items.

Raw items are plain: str (text, DNA, protein, a label), numpy arrays (an image is [height width channels], uint8 or
float in 0…1; a number is a float). Nothing is unpickled and sizes are checked before memory is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from sevenfold.core import part
from sevenfold.core.errors import DataError, did_you_mean
from sevenfold.core.seeds import seed_of
from sevenfold.data.arranged import Shelves
from sevenfold.data.line import Line
from sevenfold.data.numbers import as_array, packed
from sevenfold.data.remote import shown

Sample = dict[str, Any]

PARTS = {"train": 0, "training": 0, "valid": 1, "val": 1, "validation": 1, "dev": 1, "test": 2}
"""How a field names the part that a sample is of: 0 to train on, 1 held out, 2 for the test alone."""

UNREADABLE = 2.0
"""The place of a sample that cannot be read; others are in 0…1."""

SEQUENCES_AND_IMAGES = {
    "image",
    "microscopy",
    "dna",
    "protein",
    "molecule",
    "cells",
    "structure",
    "points",
    "series",
    "audio",
    "actions",
    "table",
}
"""Kinds of fields that say what a sample is about, whatever labels and captions stand beside them."""


class Prepared(NamedTuple):
    """What a source says that holds tokens already.

    field      the field that they are of
    stream     settings of the stream that they were made for, as plain data: kind, tokenizer, ends, begin
    tokenizer  the folder of the tokenizer's files
    """

    field: str
    stream: dict[str, Any]
    tokenizer: Path


class Ingredient(NamedTuple):
    """What a source says that is a mixture of others.

    name         of one of them
    indices      its samples
    weight       how much it counts; None: by how much there is of it
    temperature  see sevenfold.data.source.mix
    """

    name: str
    indices: range
    weight: float | None
    temperature: float


class Source(part.Part):
    """Samples by number. `__getitem__` raises BadSample (with file and offset) for one that cannot be read;
    `__init__` raises DataError, one line with the path and what to do, for a file that cannot be used at all."""

    room = "source"

    class Config(part.Config):
        path: str | None = None
        """The file or folder."""
        held_out: float = Field(default=0.05, gt=0, lt=1)
        """The share of samples that is never trained on. They are chosen by a hash of their content, so exact
        duplicates never fall on both sides; a source of one long document holds out its end."""
        split: str | None = None
        """The field that says which part a sample is of: train, valid (or val, validation, dev: held out) or test (seen by no
        training). Where it names no held-out samples, they are chosen among those to train on."""
        partly: tuple[str, ...] = ()
        """Fields that a sample may lack (labels that only some have). Elsewhere a sample without one cannot be read."""
        labelled: dict[str, int] = {}
        """Field → how many training samples of each of its values keep it, chosen by a hash; of the others it is not known. To
        see how few labels are enough."""
        bad_share: float = Field(default=0.01, ge=0, le=1)
        """Samples that cannot be read are skipped, counted and listed; more than this share of them stops the run."""
        limit: int | None = Field(default=None, ge=1)
        """Use only this many samples, the first ones."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    """File endings (lower case, with the dot) that this source reads."""
    patterns: ClassVar[bool] = False
    """Whether the path may be a URL, or a pattern for several files."""

    def __init__(self, config: Any):
        self.config = config
        self._fields: dict[str, str] = {}
        self._notes: list[str] = []

    @classmethod
    def example(cls, folder: Path) -> Any:
        """Write a small example of the format, at least 8 samples, into an empty folder; returns its Config."""
        raise NotImplementedError

    @classmethod
    def recognises(cls, path: Path) -> float:
        """How sure it is, from 0 (no) to 1, that it can read `path`; looks at the name and the first bytes only."""
        return 0.5 if path.is_file() and suffix(path) in cls.suffixes else 0.0

    @property
    def fields(self) -> dict[str, str]:
        """Field → the kind of modality that it suggests (`text`, `image`, `dna`, `protein`, `label`, `number`)."""
        return self._fields

    def no_field(self, name: str) -> str:
        """Why there is no field of this name, and what to do."""
        return f"{shown(self.config.path or 'the data')} has no field {name!r}{did_you_mean(name, self.fields)}"

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError

    def where(self, index: int) -> str:
        """File and offset of a sample, for messages."""
        return f"{self.config.path}: sample {index}"

    @property
    def continuous(self) -> bool:
        """Whether all samples are consecutive pieces of one document. Of several documents, `follows` tells more."""
        return False

    def follows(self, index: int) -> bool:
        """Whether a sample goes on where sample `index - 1` ends, with no document boundary between them."""
        return False

    @classmethod
    def told(cls, settings: Mapping[str, Any]) -> Prepared | None:
        """What a source of these settings would say as `prepared`; read before it is built. DataError as in building it."""
        return None

    @property
    def prepared(self) -> Prepared | None:
        """What it says of the tokens that it holds; None where tokens are made of its raw items."""
        return None

    @property
    def ingredients(self) -> list[Ingredient]:
        """The sources that it is a mixture of; none: it is one."""
        return []

    def line(self, indices: Sequence[int]) -> Line | None:
        """The tokens of some samples laid end to end, where it holds them that way."""
        return None

    @property
    def shelves(self) -> Shelves | None:
        """How samples lie in files, where few of these should be read at a time; None: in any order."""
        return None

    def at_hand(self, indices: Sequence[int]) -> int:
        """How many of the first of some samples can be looked at without long waiting; by default all."""
        return len(indices)

    @classmethod
    def write_index(cls, config: Any, folder: Path) -> Iterator[Path]:
        """Write for each of its files where the samples lie, so that one who reads them elsewhere need not look it up. DataError
        for a source that looks nothing up."""
        raise DataError(f"data: a source of kind {cls.kind} needs no index: tar does")

    @property
    def notes(self) -> list[str]:
        """What a person should know about how the files were read (columns left out, images resized), a line each."""
        return self._notes

    def key(self, index: int) -> str:
        """A hash of what a sample is about, equal for duplicates: of its images and sequences if it has any, otherwise
        of its texts, otherwise of all of it. Two captions or labels of one image do not make it two."""
        sample, fields = self[index], self.fields
        for kinds in (SEQUENCES_AND_IMAGES, {"text"}):
            chosen = {name: value for name, value in sample.items() if fields.get(name) in kinds}
            if chosen:
                return content_key(chosen)
        return content_key(sample)

    def split(self) -> tuple[Sequence[int], Sequence[int]]:
        """Indices to train on and held-out ones, disjoint, each in order; neither is empty if two can be read.

        By a hash of the content (`key`): stable under adding or reordering samples, and duplicates stay together.
        Unreadable samples go to the training side, where they are counted. Where a field says (`split`), it decides; samples of
        its test part are in neither.
        """
        if self.config.split is None:
            return self._by_hash(range(len(self)))
        train, held_out, _ = self._by_field
        return (train, held_out) if held_out else self._by_hash(train)

    def test(self) -> list[int]:
        """Indices of the test part that a field names (`split`); none without."""
        return [] if self.config.split is None else self._by_field[2]

    @cached_property
    def lacking(self) -> dict[str, frozenset[int]]:
        """Field → the training samples whose value is taken away (`labelled`)."""
        found: dict[str, frozenset[int]] = {}
        for field, most in self.config.labelled.items():
            if field not in self.fields:
                raise DataError(f"data.labelled: the data has no field {field!r}{did_you_mean(field, self.fields)}")
            groups: dict[str, list[tuple[int, int]]] = {}
            for index in self.split()[0]:
                try:
                    value = self[index].get(field)
                except DataError:
                    continue
                groups.setdefault(str(value), []).append((seed_of("labelled", field, self.key(index)), index))
            found[field] = frozenset(index for group in groups.values() for _, index in sorted(group)[max(most, 0) :])
        return found

    @cached_property
    def _by_field(self) -> tuple[list[int], list[int], list[int]]:
        parts: tuple[list[int], list[int], list[int]] = ([], [], [])
        for index in range(len(self)):
            try:
                sample = self[index]
            except DataError:
                parts[0].append(index)
                continue
            if self.config.split not in sample:
                raise DataError(
                    f"data.split: {self.where(index)} has no field {self.config.split!r}{did_you_mean(self.config.split, sample)}"
                )
            said = str(sample[self.config.split]).strip().lower()
            if said not in PARTS:
                raise DataError(f"data.split: {self.where(index)} is of part {said!r}, not train, valid or test")
            parts[PARTS[said]].append(index)
        if not parts[0]:
            raise DataError(f"data.split: no sample of {self.config.path} is of the part train")
        return parts

    def _by_hash(self, indices: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """Some indices, apart by the hash of what they stand for."""
        numbers = as_array(indices)
        places = np.full(len(numbers), UNREADABLE)
        for number, index in enumerate(indices):
            with suppress(DataError):
                place = seed_of("held out", self.key(index)) / 2**63
                if place < self.config.held_out:
                    self[index]
                places[number] = place
        held_out, readable = places < self.config.held_out, places < UNREADABLE
        if not held_out.any():
            held_out = self._all_at(numbers, places, np.unique(places))
        if (held_out == readable).all():
            held_out &= ~self._all_at(numbers, places, np.unique(places)[::-1])
        if not held_out.any() and readable.sum() > 1:
            held_out[places.argmin()] = True
        return packed(numbers[~held_out]), packed(numbers[held_out])

    def _all_at(self, numbers: np.ndarray, places: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Which samples are at the first of the places in `order` at which they can be read."""
        for place in order[order < UNREADABLE]:
            with suppress(DataError):
                self[int(numbers[(places == place).argmax()])]
                return np.asarray(places == place)
        return np.zeros(len(places), bool)

    def files(self) -> list[Path]:
        """The files that it reads, for the data hash."""
        if not self.config.path:
            return []
        path = self.path
        return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]

    @property
    def path(self) -> Path:
        """The file or folder of the config, which must be there."""
        if not self.config.path:
            raise DataError(f"data.path: the {self.kind} source needs a file or folder to read")
        path = Path(self.config.path).expanduser()
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder")
        return path


def suffix(path: Path) -> str:
    """A file's ending, lower case, with the dot; of `x.csv.gz` it is `.csv`."""
    endings = [ending.lower() for ending in path.suffixes]
    return endings[-2] if len(endings) > 1 and endings[-1] == ".gz" else (endings or [""])[-1]


def content_key(sample: Sample) -> str:
    """A hash of what a sample holds, equal for equal content."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(sample):
        value = sample[name]
        digest.update(name.encode() + b"\0")
        if isinstance(value, np.ndarray):
            digest.update(repr((value.shape, value.dtype.str)).encode() + np.ascontiguousarray(value).tobytes())
        else:
            digest.update(str(value).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
