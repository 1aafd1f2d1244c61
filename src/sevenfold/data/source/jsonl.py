"""One JSON object per line: .jsonl and .ndjson, also .gz.

    {"text": "Where is the milk?", "label": "question"}

The first 1,000 lines tell what a field holds: text (strings, or lists of strings, joined by line ends), label (few
distinct short strings, or true and false), number, dna, protein, array (lists of numbers).

Instruction, chat, preference and classification data; most text corpora.
"""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.errors import BadSample, DataError
from sevenfold.data.source import Sample, Source
from sevenfold.data.source._columns import FIRST, choose, keyed
from sevenfold.data.source._files import HEAD, LARGEST, Bytes, OnDisk, not_text, read_bytes


class Jsonl(Source):
    """Samples are the lines' objects, by the fields that the first lines have."""

    class Config(Source.Config):
        fields: dict[str, str] | None = None
        """Field → `text`, `label`, `number`, `dna`, `protein` or `array`; only these are read. By default all are,
        as what they look like."""
        largest_bytes: int = Field(default=LARGEST, ge=1)
        """The file is held in memory if it is not longer than this; beyond that it is read from the disk, line by line. One that
        is packed (.gz) may not be longer, unpacked."""
        longest_line: int = Field(default=64 << 20, ge=1)
        """A line of more bytes cannot be read."""

    suffixes = (".jsonl", ".ndjson")

    def __init__(self, config: Any):
        super().__init__(config)
        path = self.path
        much = path.is_file() and path.suffix.lower() != ".gz" and path.stat().st_size > config.largest_bytes
        self._data = OnDisk(path) if much else read_bytes(path, config.largest_bytes)
        why = not_text(self._data)
        if why:
            raise DataError(f"{self.path}: {why}")
        self._starts, self._lines = lines_of(self._data, config.limit, config.longest_line)
        rows = []
        for index in range(min(FIRST, len(self))):
            try:
                rows.append(self._row(index))
            except BadSample:
                continue
        if not rows:
            why = (
                "is one JSON array"
                if self._data[:HEAD].lstrip()[:1] == b"["
                else "holds no JSON object in its first lines"
            )
            raise DataError(f"{self.path}: {why}: write one object per line")
        wanted = None if config.fields is None else list(config.fields)
        self._fields, self._notes = choose(str(self.path), rows, wanted, config.fields, config.bad_share, config.partly)

    @classmethod
    def example(cls, folder: Path) -> Any:
        rows = [
            {"text": f"{count} bottles are {'many' if count > 9 else 'few'}", "label": "many" if count > 9 else "few"}
            for count in range(24)
        ]
        (folder / "bottles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return cls.Config(path=str(folder / "bottles.jsonl"))

    def __len__(self) -> int:
        return len(self._lines)

    def _row(self, index: int) -> dict[str, Any]:
        start, stop = int(self._starts[index]), int(self._starts[index + 1])
        if stop - start > self.config.longest_line:
            raise BadSample(self.where(index), f"is {stop - start:,} bytes long: raise data.longest_line")
        line = self._data[start:stop]
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadSample(self.where(index), f"is not JSON: {str(error).splitlines()[0]}") from None
        if not isinstance(row, dict):
            raise BadSample(self.where(index), f"is {line.strip()[:20]!r}…, not a JSON object")
        return row

    def __getitem__(self, index: int) -> Sample:
        return keyed(self._row(index), self._fields, self.config.partly, self.where(index))

    def where(self, index: int) -> str:
        return f"{self.path}:{self._lines[index]}"


def lines_of(data: Bytes, limit: int | None, longest: int = LARGEST) -> tuple[np.ndarray, np.ndarray]:
    """Where the lines that are not blank start, with the end of the last, [n + 1]; and their numbers from 1, [n]. A line on the disk
    is looked at up to `longest` bytes."""
    starts, numbers, end = array("q"), array("q"), 0
    lines = data.lines(longest) if isinstance(data, OnDisk) else _lines(data)
    for number, (place, line) in enumerate(lines, 1):
        end = place
        if line.strip():
            if limit is not None and len(numbers) == limit:
                break
            starts.append(place)
            numbers.append(number)
    else:
        end = len(data)
    starts.append(end)
    return np.array(starts, np.int64), np.array(numbers, np.int64)


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    for line in io.BytesIO(data):
        yield place, line
        place += len(line)
