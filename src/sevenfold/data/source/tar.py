"""Tar files of samples in the layout of WebDataset: files of one stem are one sample, and nothing is unpacked.

    0001.jpg 0001.txt 0001.json 0002.jpg …

The path is a .tar file, a folder of them, or a pattern (`data-{0000..0099}.tar`, `data-*.tar`), here or at a URL. Pictures are the field
`image`; .txt is `caption` beside pictures and `text` alone; .cls is `label`; the keys of .json objects are fields as in JSON lines.
Where each sample lies is looked up once and kept, or said by an index beside the tar (_contents.py). Names are names only; links, devices and packed tar files are not read.

LAION, DataComp, CC12M, ImageNet in shards; CLIP, SigLIP.
"""

from __future__ import annotations

import io
import json
import os
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from sevenfold.core.errors import BadSample, DataError
from sevenfold.data.source import Sample
from sevenfold.data.source._columns import FIRST, choose, keyed
from sevenfold.data.source._contents import INDEX, Contents, Looked
from sevenfold.data.source._images import common_shape, load, look
from sevenfold.data.source._raw import NOWHERE, Pieces, Raw
from sevenfold.data.source._tarred import packed

PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")
WORDS = ("txt", "text", "caption")
LABELS = ("cls", "label")
READ = {
    **dict.fromkeys(PICTURES, "image"),
    **dict.fromkeys(WORDS, "caption"),
    **dict.fromkeys(LABELS, "label"),
    "json": "json",
}
ABOUT = (*PICTURES, *WORDS, "json")
"""What a sample is about: the first of these that it has."""
LOOKED_AT = 64
OPEN = 32
"""Files that are open at one time."""
LONGEST = 16 << 20
"""Bytes of a text."""


class Tar(Pieces):
    """Samples by their stem, in the order of the files."""

    class Config(Pieces.Config):
        size: int | None = Field(default=None, ge=1, le=4096)
        """Height and width that every image is resized to; by default told from the first images."""
        channels: Literal[1, 3] | None = None
        """1 for grey, 3 for RGB; by default told from the first images."""
        largest: int = Field(default=50_000_000, ge=1, le=150_000_000)
        """Images of more pixels than this are not decoded."""
        largest_bytes: int = Field(default=256 << 20, ge=1)
        """Files in the archive that are longer than this are not read."""

    suffixes = (".tar",)

    def __init__(self, config: Any):
        super().__init__(config)
        self._open: OrderedDict[int, int] = OrderedDict()
        self._tars = Looked(self._raw, ABOUT, self._raw.far)
        self._held_out_by: list[np.ndarray] = []
        endings: Counter[str] = Counter()
        for tar in self._tars.each(config.limit):
            count = len(tar.keys)
            endings.update(tar.counted(min(count, (config.limit or NOWHERE) - self._file_starts[-1])))
            self._file_starts.append(self._file_starts[-1] + count)
            self._held_out_by.append(tar.places)
        if not len(self):
            raise DataError(f"{self._said}: holds no samples: files whose names have an ending")
        self._choose(endings)

    def _choose(self, endings: Counter[str]) -> None:
        """Which fields there are: endings that nearly all samples have, or that `partly` names."""
        count, config = len(self), self.config
        found: Counter[str] = Counter()
        for ending, many in endings.items():
            found[READ.get(ending, "")] += many
        words = "caption" if found["image"] else "text"
        self._names = {"image": "image", "caption": words, "label": "label"}
        kinds = {"image": "image", "caption": "text", "label": "label"}
        for field, name in self._names.items():
            if found[field] and (name in config.partly or found[field] >= (1 - config.bad_share) * count - 1):
                self._fields[name] = kinds[field]
            elif found[field]:
                self._notes.append(
                    f"{self._said}: {name} is left out: {found[field]:,} of {count:,} samples have it (name it in data.partly)"
                )
        self._columns: dict[str, str] = {}
        if found["json"] >= (1 - config.bad_share) * count - 1:
            self._columns = self._of_json()
        left = sorted(ending for ending in endings if ending not in READ)
        if left:
            self._notes.append(f"{self._said}: files that end in {', '.join(left[:5])} are left out")
        self._fields |= self._columns
        if not self._fields:
            raise DataError(
                f"{self._said}: holds nothing that is read ({', '.join(f'.{ending}' for ending in READ)}); there are files that end in "
                f"{', '.join(map(repr, left[:5])) or 'these, but few samples have them'}"
            )
        if "image" in self._fields:
            self.shape = self._common_shape()

    def _first(self) -> range:
        return range(min(FIRST, self.at_hand(range(len(self)))))

    def _of_json(self) -> dict[str, str]:
        rows = []
        for index in self._first():
            try:
                rows.append(self._row(index))
            except BadSample:
                continue
        if not rows:
            return {}
        partly = [name for name in self.config.partly if name not in self._fields]
        chosen, notes = choose(self._said, rows, None, None, self.config.bad_share, partly)
        self._notes += notes
        return {name: kind for name, kind in chosen.items() if name not in self._fields}

    def _common_shape(self) -> tuple[int, int, int]:
        found, problems = [], []
        for index in self._first()[:LOOKED_AT]:
            try:
                content = self._read(index, "image")
                if content is not None:
                    found.append(look(content, self.where(index)))
            except BadSample as error:
                problems.append(error)
        if not found:
            raise DataError(f"none of the first {len(problems)} images can be read: {problems[0] if problems else ''}")
        shape, resized = common_shape(found, self.config.size, self.config.channels)
        if resized:
            self._notes.append(f"{self._said}: images are resized to {shape[0]} x {shape[1]} pixels")
        return shape

    @classmethod
    def example(cls, folder: Path) -> Any:
        from PIL import Image

        files = {}
        for count in range(12):
            light, picture = count % 2, io.BytesIO()
            level = np.full((8, 8, 3), 40 + 8 * count + 100 * light, np.uint8)
            Image.fromarray(level).save(picture, "png")
            said = f"{'light' if light else 'dark'} square {count}"
            for ending, content in (("png", picture.getvalue()), ("txt", said.encode()), ("cls", b"%d" % light)):
                files[f"some/{count:04d}.{ending}"] = content
        (folder / "squares.tar").write_bytes(packed(files))
        return cls.Config(path=str(folder / "squares.tar"))

    @classmethod
    def recognises(cls, path: Path) -> float:
        if not path.is_dir():
            return super().recognises(path)
        files = [file for file in path.iterdir() if file.is_file() and not file.name.endswith(INDEX)]
        return 0.9 if sum(file.suffix.lower() in cls.suffixes for file in files) > len(files) / 2 else 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": OrderedDict()}

    def __len__(self) -> int:
        return min(self._file_starts[-1], self.config.limit or self._file_starts[-1])

    def _place(self, index: int) -> tuple[int, Contents, int]:
        """(which file, what it holds, the number of the sample there)."""
        number = bisect_right(self._file_starts, index) - 1
        return number, self._tars[number], index - self._file_starts[number]

    @classmethod
    def write_index(cls, config: Any, folder: Path) -> Iterator[Path]:
        return Looked(Raw(config.path, cls.suffixes, config.cache, config.group), ABOUT, True).written(folder)

    def _read(self, index: int, field: str) -> bytes | None:
        """The content of the part of a sample that is a field's, None if it has none."""
        number, tar, own = self._place(index)
        parts = range(tar.firsts[own], tar.firsts[own + 1])
        for part in parts:
            if tar.sizes[part] < 0:
                why, ending = tar.why(part), tar.ending(part)
                raise BadSample(self.where(index), f".{ending} {why}" if ending else why)
        for part in parts:
            ending, offset, size = tar.ending(part), int(tar.offsets[part]), int(tar.sizes[part])
            if READ.get(ending) != field:
                continue
            if size > (self.config.largest_bytes if field == "image" else min(LONGEST, self.config.largest_bytes)):
                raise BadSample(self.where(index), f".{ending} is {size:,} bytes long: raise largest_bytes")
            content = _at(self._opened(number), size, offset)
            if len(content) != size:
                raise BadSample(self.where(index), f".{ending} is cut off")
            return content
        return None

    def _opened(self, number: int) -> int:
        if number not in self._open:
            try:
                self._open[number] = self._raw.used(
                    number, lambda path: os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
                )
            except OSError as error:
                raise DataError(f"{self._raw.names[number]}: cannot be read: {error.strerror}") from None
            while len(self._open) > min(OPEN, (self._raw.group or OPEN) + 2):
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(number)
        return self._open[number]

    def _row(self, index: int) -> dict[str, Any]:
        content = self._read(index, "json")
        try:
            row = json.loads(content or b"null")
        except (ValueError, RecursionError) as error:
            raise BadSample(self.where(index), f".json is not JSON: {str(error).splitlines()[0]}") from None
        if not isinstance(row, dict):
            raise BadSample(self.where(index), ".json is no object" if content else "has no .json")
        return row

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = {}
        for field, name in self._names.items():
            if name not in self._fields or name in self._columns:
                continue
            content = self._read(index, field)
            if content is None and name in self.config.partly:
                sample[name] = None
            elif content is None:
                raise BadSample(self.where(index), f"has no {name}: name it in data.partly if some samples may lack it")
            elif field == "image":
                sample[name] = load(content, self.where(index), self.shape, self.config.largest)
            else:
                sample[name] = self._words(index, name, content)
        row = self._row(index) if self._columns else {}
        return sample | keyed(row, self._columns, self.config.partly, self.where(index))

    def _words(self, index: int, name: str, content: bytes) -> str:
        try:
            text = content.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise BadSample(self.where(index), f"its {name} is not UTF-8 text (byte {error.start})") from None
        if not text:
            raise BadSample(self.where(index), f"its {name} is empty")
        return text

    def where(self, index: int) -> str:
        number, tar, own = self._place(index)
        key = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in tar.keys[own])
        return f"{self._raw.names[number]}:{key}"

    def key(self, index: int) -> str:
        """The hash of its picture, or else of its text: of the first MiB, and the size."""
        _, tar, own = self._place(index)
        return tar.hashes[own].tobytes().hex()

    def _places(self, number: int) -> np.ndarray:
        return self._held_out_by[number]


def _at(handle: int, size: int, offset: int) -> bytes:
    """Some bytes of an open file. Processes that were forked share a place in it, which is left alone."""
    if hasattr(os, "pread"):
        return os.pread(handle, size, offset)
    os.lseek(handle, offset, os.SEEK_SET)  # Windows, where processes are not forked
    return os.read(handle, size)
