"""A folder of images (png, jpg, bmp, gif, webp, tif), with or without labels and captions.

    cat/1.png  dog/2.png                             the folder's name is the label
    1.png  1.txt                                     the text is the caption
    1.png  captions.csv (or metadata.csv, .jsonl)    columns file and caption (or text), perhaps label

Images are uint8 [height width channels], transparency laid over white. If the first 64 images have one size it is kept,
otherwise all are resized (not cropped) to a square of 32, 64, 128 or 256, the largest that half of them fill; a later
one of another size is resized. Grey if all of the first are, otherwise RGB. `size` and `channels` overrule this.

ViT, MAE, DINO; with captions CLIP, SigLIP and captioning models.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from sevenfold.core.errors import BadSample, DataError
from sevenfold.data.source import Sample, Source, suffix
from sevenfold.data.source._files import list_files
from sevenfold.data.source._images import common_shape, load, look
from sevenfold.data.source.csv import Csv
from sevenfold.data.source.jsonl import Jsonl

FILE_COLUMNS = ("file", "file_name", "filename", "image", "image_path", "path")
CAPTION_COLUMNS = ("caption", "text", "description", "title", "name")
LABEL_COLUMNS = ("label", "class", "category")
TABLES: dict[str, Any] = {
    "captions.csv": Csv,
    "captions.tsv": Csv,
    "captions.jsonl": Jsonl,
    "metadata.jsonl": Jsonl,
    "metadata.csv": Csv,
}
LOOKED_AT = 64
HASHED = 1 << 20
LONGEST_CAPTION = 1 << 16


class Entry(NamedTuple):
    """One sample: the image, where it is named, and its words; or why it cannot be used."""

    path: Path
    where: str
    words: dict[str, str]
    caption_file: Path | None = None
    why: str = ""


class ImageFolder(Source):
    """Samples are {"image": uint8 [H W C]}, with "label" and "caption" where there are any."""

    class Config(Source.Config):
        size: int | None = Field(default=None, ge=1, le=4096)
        """Height and width that every image is resized to; by default told from the first images."""
        channels: Literal[1, 3] | None = None
        """1 for grey, 3 for RGB; by default told from the first images."""
        largest: int = Field(default=50_000_000, ge=1, le=150_000_000)
        """Images of more pixels than this are not decoded."""

    suffixes = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")

    def __init__(self, config: Any):
        super().__init__(config)
        self._notes: list[str] = []
        root = self.path
        if not root.is_dir():
            raise DataError(f"{root}: is one file; give the folder that holds the images")
        self._files = list_files(root)
        images = [file for file in self._files if suffix(file) in self.suffixes]
        if not images:
            raise DataError(f"{root}: holds no images; read are {', '.join(self.suffixes)}")
        table = next((root / name for name in TABLES if (root / name).is_file()), None)
        entries = self._from_table(root, table, images) if table else self._from_tree(root, images)
        self._entries = entries[: config.limit]
        self._names = [name for name in ("label", "caption") if any(name in entry.words for entry in self._entries)]
        if any(entry.caption_file for entry in self._entries):
            self._names.append("caption")
        self.shape = self._common_shape()
        """[height, width, channels] of every image."""

    def _from_tree(self, root: Path, images: list[Path]) -> list[Entry]:
        """Labels from the folders, if all images are in two folders or more; captions from .txt files beside them."""
        folders = {image.parent for image in images}
        labelled = root not in folders and len({folder.name for folder in folders}) > 1
        texts = {file for file in self._files if file.suffix == ".txt"}
        captioned = sum(image.with_suffix(".txt") in texts for image in images)
        if 0 < captioned < len(images) / 2:
            self._notes.append(f"{root}: captions are left out: only {captioned} of {len(images)} images have one")
            captioned = 0
        return [
            Entry(
                image,
                str(image),
                {"label": image.parent.name} if labelled else {},
                image.with_suffix(".txt") if captioned else None,
            )
            for image in images
        ]

    def _from_table(self, root: Path, table: Path, images: list[Path]) -> list[Entry]:
        """One entry per line of the table; files are named relative to the folder and stay in it."""
        names = list(TABLES[table.name].Config(path=str(table)).build().fields)
        file, caption, label = (
            next((name for name in known if name in names), None)
            for known in (FILE_COLUMNS, CAPTION_COLUMNS, LABEL_COLUMNS)
        )
        if file is None or (caption is None and label is None):
            raise DataError(
                f"{table}: needs a column that names the image ({', '.join(FILE_COLUMNS)}) and one of captions "
                f"({', '.join(CAPTION_COLUMNS)}) or labels; it has {', '.join(names)}"
            )
        chosen = {field: name for field, name in (("caption", caption), ("label", label)) if name}
        rows = (
            TABLES[table.name].Config(path=str(table), fields=dict.fromkeys([file, *chosen.values()], "text")).build()
        )
        entries, home, seen = [], root.resolve(), set()
        for index in range(len(rows)):
            try:
                row = rows[index]
            except BadSample as error:
                entries.append(Entry(root, error.where, {}, why=error.why))
                continue
            path = root / row[file]
            if not _stays_in(home, path, row[file]):
                why = f"the file {row[file]!r} is not in the folder {root}"
                entries.append(Entry(root, rows.where(index), {}, why=why))
                continue
            seen.add(path)
            words = {field: row[name].strip() for field, name in chosen.items()}
            entries.append(Entry(path, f"{path} ({table.name}:{rows.where(index).rpartition(':')[2]})", words))
        if without := len(set(images) - seen):
            self._notes.append(f"{root}: {without} images are left out: {table.name} does not name them")
        return entries

    def _common_shape(self) -> tuple[int, int, int]:
        found, problems = [], []
        for entry in self._entries[:LOOKED_AT]:
            try:
                if entry.why:
                    raise BadSample(entry.where, entry.why)
                found.append(look(entry.path, entry.where))
            except BadSample as error:
                problems.append(error)
        if not found:
            raise DataError(f"none of the first {len(problems)} images can be read: {problems[0]}")
        shape, resized = common_shape(found, self.config.size, self.config.channels)
        if resized:
            self._notes.append(f"{self.path}: images are resized to {shape[0]} x {shape[1]} pixels")
        return shape

    @classmethod
    def example(cls, folder: Path) -> Any:
        from PIL import Image

        for count in range(12):
            name = ("dark", "light")[count % 2]
            (folder / name).mkdir(exist_ok=True)
            level = np.full((8, 8, 3), 40 + 8 * count + 100 * (count % 2), np.uint8)
            Image.fromarray(level).save(folder / name / f"{count}.png")
            (folder / name / f"{count}.txt").write_text(f"{name} square number {count}\n", encoding="utf-8")
        return cls.Config(path=str(folder))

    @classmethod
    def recognises(cls, path: Path) -> float:
        if not path.is_dir():
            return 0.0
        files = list_files(path)
        return 0.8 if sum(suffix(file) in cls.suffixes for file in files) > len(files) / 3 else 0.0

    @property
    def fields(self) -> dict[str, str]:
        kinds = {"label": "label", "caption": "text"}
        return {"image": "image", **{name: kinds[name] for name in self._names}}

    def no_field(self, name: str) -> str:
        """One folder says nothing of its pictures."""
        if name != "label":
            return super().no_field(name)
        return f"{self.path}: has no field 'label': labels are the names of two folders or more in it, or a column of {', '.join(TABLES)}"

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        entry = self._entries[index]
        if entry.why:
            raise BadSample(entry.where, entry.why)
        sample: Sample = {"image": load(entry.path, entry.where, self.shape, self.config.largest), **entry.words}
        if entry.caption_file is not None:
            sample["caption"] = _caption(entry.caption_file)
        if not sample.get("caption", True):
            raise BadSample(entry.where, "its caption is empty")
        return sample

    def where(self, index: int) -> str:
        return self._entries[index].where

    def key(self, index: int) -> str:
        """A hash of the file's first MiB and its size: quick, and equal for copies of a file."""
        entry = self._entries[index]
        if entry.why:
            raise BadSample(entry.where, entry.why)
        try:
            with open(entry.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                return hashlib.blake2b(file.read(HASHED) + b"%d" % size, digest_size=16).hexdigest()
        except OSError as error:
            raise BadSample(entry.where, f"cannot be read: {error.strerror}") from None

    def files(self) -> list[Path]:
        return list(self._files)


def _caption(path: Path) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read(LONGEST_CAPTION).strip()
    except FileNotFoundError:
        raise BadSample(str(path), "is missing, and the other images have such a caption") from None
    except (OSError, ValueError) as error:
        raise BadSample(str(path), f"the caption cannot be read as UTF-8 text: {error}") from None


def _stays_in(home: Path, path: Path, name: str) -> bool:
    """Whether a name from a table is one of a file in the folder: not absolute, no way up, no link that leads out."""
    if not name.strip() or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        return False
    return path.resolve().is_relative_to(home)
