"""Plain text: a UTF-8 file, or a folder of them.

Reads .txt, .md, .rst and .log (also .gz), and any other file that is UTF-8 text. A file is a document; a long one is
cut into pieces of about 64 KB, at line ends, which `follows` joins again for packing. With fewer than 50 documents the
end of the text is held out, cut at a line end; otherwise whole documents, by a hash of their content.

Language models: GPT, BERT, T5; book and code corpora, Tiny Shakespeare.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from sevenfold.core.errors import BadSample, DataError
from sevenfold.data.source import Sample, Source, content_key, suffix
from sevenfold.data.source._files import (
    HEAD,
    LARGEST,
    Bytes,
    OnDisk,
    head_of,
    list_files,
    not_text,
    read_any,
    read_bytes,
)
from sevenfold.data.source._pieces import FEW, Piece, hold_out_end, pieces_of

HASHED = 1 << 22
"""Bytes of a document that are hashed at a time."""


class Text(Source):
    """Samples are {"text": str}, in the order of the text; joined, they are the text."""

    class Config(Source.Config):
        piece_bytes: int = Field(default=1 << 16, ge=64)
        """About how long the pieces are that a long document is cut into."""
        largest_bytes: int = Field(default=LARGEST, ge=1)
        """All the text together is held in memory if it is not longer than this; beyond that it is read from the disk, piece by
        piece. What is packed (.gz) may not be longer."""

    suffixes = (".txt", ".md", ".rst", ".log", ".text")

    def __init__(self, config: Any):
        super().__init__(config)
        self._files, self._documents = self._read(self.path)
        self._pieces = pieces_of(self._documents, config.piece_bytes, cut_text, config.limit)
        self._held_out_from: int | None = None
        self._keys: dict[int, str] = {}
        if len(self._documents) < FEW:
            self._pieces, self._held_out_from = hold_out_end(
                self._pieces, self._documents, cut_text, config.held_out, config.limit
            )

    def _read(self, path: Path) -> tuple[list[Path], list[Bytes]]:
        files = list_files(path, self.suffixes) if path.is_dir() else [path]
        left = self.config.largest_bytes
        plain = [file for file in files if file.suffix.lower() != ".gz"]
        much = sum(file.stat().st_size for file in plain) > left
        if not path.is_dir():
            data = OnDisk(path) if much else read_bytes(path, left)
            why = not_text(data)
            if why:
                raise DataError(f"{path}: {why}")
            return [path], [data]
        found, documents = [], list[Bytes]()
        for file in files:
            data = OnDisk(file) if much and file in plain else read_any(file, left)
            if data[:HEAD].strip():
                found.append(file)
                documents.append(data)
                left -= 0 if isinstance(data, OnDisk) else len(data)
        if not found:
            raise DataError(f"{path}: holds no text files with content; read are {', '.join(self.suffixes)}")
        if all(map(not_text, documents)):
            raise DataError(f"{found[0]}: {not_text(documents[0])}")
        return found, documents

    @classmethod
    def example(cls, folder: Path) -> Any:
        lines = [f"{count} green bottles hanging on the wall, and one of them falls.\n" for count in range(200, 1, -1)]
        (folder / "song.txt").write_text("".join(lines), encoding="utf-8")
        return cls.Config(path=str(folder / "song.txt"), piece_bytes=1024)

    @classmethod
    def recognises(cls, path: Path) -> float:
        if path.is_dir():
            files = list_files(path)
            share = sum(suffix(file) in cls.suffixes for file in files) / max(1, len(files))
            return 0.5 * share if share > 0.5 else 0.0
        if suffix(path) in cls.suffixes:
            return 0.5
        head = head_of(path)
        return 0.1 if head.strip() and not not_text(head) else 0.0

    @property
    def fields(self) -> dict[str, str]:
        return {"text": "text"}

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: int) -> Sample:
        piece = self._pieces[index]
        data = self._documents[piece.document][piece.start : piece.stop]
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadSample(
                self._place(piece, error.start), f"the byte 0x{data[error.start]:02x} is not UTF-8: convert the file"
            ) from None
        if "\0" in text:
            raise BadSample(self._place(piece, data.index(0)), "holds a NUL byte, which no text does")
        return {"text": text}

    def _place(self, piece: Piece, offset: int = 0) -> str:
        return f"{self._files[piece.document]}:byte {piece.start + offset}"

    def where(self, index: int) -> str:
        return self._place(self._pieces[index])

    @property
    def continuous(self) -> bool:
        return len(self._documents) == 1

    def follows(self, index: int) -> bool:
        return self._pieces[index].start > 0

    def key(self, index: int) -> str:
        if self._held_out_from is not None:
            return super().key(index)
        number = self._pieces[index].document
        if number not in self._keys:
            document = self._documents[number]
            if isinstance(document, OnDisk):
                digest = hashlib.blake2b(digest_size=16)
                for start in range(0, len(document), HASHED):
                    digest.update(document[start : start + HASHED])
                self._keys[number] = digest.hexdigest()
            else:
                self._keys[number] = content_key({"text": document})
        return self._keys[number]

    def split(self) -> tuple[Sequence[int], Sequence[int]]:
        if self._held_out_from is None:
            return super().split()
        return list(range(self._held_out_from)), list(range(self._held_out_from, len(self)))

    def files(self) -> list[Path]:
        return list(self._files)


def cut_text(document: Bytes, low: int, high: int) -> int:
    """The last line end in low…high, or else the last space in its second half, or else between two characters; low if there is none."""
    place = document.rfind(b"\n", low, high) + 1
    if place <= low:
        place = document.rfind(b" ", (low + high) // 2, high) + 1
    if place <= low:
        place = high
        while place > low and document[place : place + 1] and document[place : place + 1][0] & 0xC0 == 0x80:
            place -= 1
    return place
