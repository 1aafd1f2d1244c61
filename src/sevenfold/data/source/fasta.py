"""FASTA: DNA or protein sequences, one record each. .fa .fasta .fna .faa .ffn .fas, also .gz.

    >name and description
    ACGTTGCA...

Whether it is DNA or protein is told from the first records. Sequences are given in upper case, U as T. A DNA record
longer than 64,000 letters (a chromosome) is cut into consecutive pieces, which `follows` joins again. Of one DNA
record, or fewer than 50 with one that long, the end is held out; otherwise whole records, by a hash of their sequence.

Nucleotide Transformer, HyenaDNA, Evo; ESM, ProtTrans.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from sevenfold.core.errors import BadSample, DataError
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Sample, Source, content_key, suffix
from sevenfold.data.source._columns import DNA, PROTEIN
from sevenfold.data.source._files import LARGEST, head_of, not_text, read_bytes
from sevenfold.data.source._pieces import FEW, hold_out_end, pieces_of

LETTERS = {"dna": "".join(sorted(DNA - {"U"})).encode(), "protein": "".join(sorted(PROTEIN)).encode()}
LOOKED_AT = 100_000


class Record(NamedTuple):
    """A record's name, the number of its header line, and its letters in upper case."""

    name: str
    line: int
    letters: bytes


class Fasta(Source):
    """Samples are {"dna": str} or {"protein": str}; the pieces of a record, joined, are its sequence."""

    class Config(Source.Config):
        alphabet: Literal["dna", "protein"] | None = None
        """What the letters stand for; by default what the first records look like."""
        piece_letters: int = Field(default=64_000, ge=16)
        """DNA records longer than this are cut into pieces of this many letters. Proteins are never cut."""
        largest_bytes: int = Field(default=LARGEST, ge=1)
        """The file, unpacked, may not be longer than this; it is held in memory."""

    suffixes = (".fa", ".fasta", ".fna", ".faa", ".ffn", ".fas")

    def __init__(self, config: Any):
        super().__init__(config)
        data = read_bytes(self.path, config.largest_bytes)
        if not_text(data):
            raise DataError(f"{self.path}: {not_text(data)}")
        self._records = self._parse(data)
        self.alphabet: str = config.alphabet or self._guess()
        """`dna` or `protein`."""
        if self.alphabet == "dna":
            self._records = [record._replace(letters=record.letters.replace(b"U", b"T")) for record in self._records]
        documents = [record.letters or b" " for record in self._records]
        longest = max(map(len, documents))
        size = config.piece_letters if self.alphabet == "dna" else longest
        self._pieces = pieces_of(documents, size, cut_anywhere, config.limit)
        self._held_out_from: int | None = None
        whole = len(documents) == 1 or longest > size
        if self.alphabet == "dna" and len(documents) < FEW and whole:
            self._pieces, self._held_out_from = hold_out_end(
                self._pieces, documents, cut_anywhere, config.held_out, config.limit
            )

    def _parse(self, data: bytes) -> list[Record]:
        before, *records = (b"\n" + data.lstrip()).split(b"\n>")
        if not records or before.strip(b"\n\r ;").strip() and not before.lstrip().startswith(b";"):
            raise DataError(
                f"{self.path}: does not begin with a FASTA record, a line that starts with '>' and its name"
            )
        line, found = data[: len(data) - len(data.lstrip())].count(b"\n") + 1 + before.count(b"\n"), []
        for record in records:
            header, _, body = record.partition(b"\n")
            name = (header.split() or [b""])[0].decode("utf-8", "replace")
            found.append(Record(name, line, body.upper().translate(None, b" \t\r\n")))
            line += record.count(b"\n") + 1
        return found

    def _guess(self) -> str:
        text = b""
        for record in self._records:
            text += record.letters[: LOOKED_AT - len(text)]
            if len(text) >= LOOKED_AT:
                break
        known = len(text) - len(text.translate(None, LETTERS["protein"]))
        if not text or known < 0.5 * len(text):
            raise DataError(f"{self.path}: its records hold neither DNA nor protein letters")
        bases = len(text) - len(text.translate(None, b"ACGTUN"))
        return "dna" if bases > 0.9 * len(text) else "protein"

    @classmethod
    def example(cls, folder: Path) -> Any:
        draw = numpy_generator("fasta")
        lines = ["".join(draw.choice(list("ACGT"), 60)) + "\n" for _ in range(60)]
        (folder / "phage.fa").write_text(">phage a made-up genome\n" + "".join(lines), encoding="utf-8")
        return cls.Config(path=str(folder / "phage.fa"), piece_letters=256)

    @classmethod
    def recognises(cls, path: Path) -> float:
        if not path.is_file():
            return 0.0
        begins = head_of(path).lstrip()[:1] in (b">", b";")
        return 0.9 if suffix(path) in cls.suffixes else 0.3 * begins

    @property
    def fields(self) -> dict[str, str]:
        return {self.alphabet: self.alphabet}

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: int) -> Sample:
        number, start, stop = self._pieces[index]
        letters = self._records[number].letters[start:stop]
        wrong = letters.translate(None, LETTERS[self.alphabet])
        if wrong:
            place = min(letters.index(letter) for letter in set(wrong))
            what = letters[place : place + 1].decode("ascii", "replace")
            known = self.alphabet.replace("dna", "DNA")
            raise BadSample(self._place(number, start + place), f"{what!r} is no letter of {known}")
        if not letters:
            raise BadSample(self._place(number, 0), "the record has no sequence")
        return {self.alphabet: letters.decode("ascii")}

    def _place(self, number: int, offset: int) -> str:
        record = self._records[number]
        return f"{self.path}:{record.line}: record {record.name!r} offset {offset}"

    def where(self, index: int) -> str:
        return self._place(self._pieces[index].document, self._pieces[index].start)

    @property
    def continuous(self) -> bool:
        return len(self._records) == 1

    def follows(self, index: int) -> bool:
        return self._pieces[index].start > 0

    def key(self, index: int) -> str:
        if self._held_out_from is not None:
            return super().key(index)
        return content_key({self.alphabet: self._records[self._pieces[index].document].letters})

    def split(self) -> tuple[Sequence[int], Sequence[int]]:
        if self._held_out_from is None:
            return super().split()
        return list(range(self._held_out_from)), list(range(self._held_out_from, len(self)))


def cut_anywhere(document: bytes, low: int, high: int) -> int:
    """The whole piece."""
    return high
