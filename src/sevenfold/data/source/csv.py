"""Tables as text: .csv and .tsv, also .gz.

    text,label                          the first line may name the columns (otherwise column_1, column_2 …)
    "where is the milk?",question

Delimiter (comma, tab, semicolon, bar), quotes and header are told from the first records; what a column holds (text,
label, number, dna, protein) from the first 1,000 rows.

Classification and regression sets; DNA and protein variants with a measured property.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from pydantic import Field

from sevenfold.core.errors import BadSample, DataError
from sevenfold.data.source import Sample, Source, suffix
from sevenfold.data.source._columns import FIRST, cell, choose
from sevenfold.data.source._delimited import dialect_of, is_header, names_of, records_of
from sevenfold.data.source._files import HEAD, LARGEST, not_text, read_bytes


class Csv(Source):
    """Samples are the rows, {column: text, label, sequence or number}."""

    class Config(Source.Config):
        columns: list[str] | None = None
        """The columns to read; by default all that can be read."""
        fields: dict[str, str] | None = None
        """Column → `text`, `label`, `number`, `dna` or `protein`, where it is not what it looks like."""
        delimiter: str | None = Field(default=None, min_length=1, max_length=1)
        """What stands between cells; by default what divides the first lines best (a tab in a .tsv)."""
        header: bool | None = None
        """Whether the first line names the columns; by default when it looks like it."""
        largest_bytes: int = Field(default=LARGEST, ge=1)
        """The file, unpacked, may not be longer than this; it is held in memory."""

    suffixes = (".csv", ".tsv")

    def __init__(self, config: Any):
        super().__init__(config)
        self._data = read_bytes(self.path, config.largest_bytes)
        why = not_text(self._data)
        if why:
            raise DataError(f"{self.path}: {why}")
        head = self._data[:HEAD]
        if len(head) < len(self._data):
            head = head[: head.rfind(b"\n") + 1] or head
        tab = "\t" if suffix(self.path) == ".tsv" else None
        self._dialect = dialect_of(head.decode("utf-8", "replace"), config.delimiter or tab)
        limit = None if config.limit is None else config.limit + 1
        self._starts, self._numbers = records_of(self._data, self._dialect.quoted, limit)
        first, rows = self._first_rows()
        header = is_header(first, rows) if config.header is None else config.header
        self.columns = names_of(first, header)
        """The names of all columns."""
        self._skipped = int(header)
        self._count = len(self._numbers) - self._skipped
        if self._count < 1:
            raise DataError(f"{self.path}: has a header but no rows")
        if config.limit is not None:
            self._count = min(self._count, config.limit)
        known = [row for row in (rows if header else [first, *rows]) if len(row) == len(self.columns)]
        if not known:
            raise DataError(f"{self.path}: no row has {len(self.columns)} cells as the first line has: is it a table?")
        self._fields, self._notes = choose(
            str(self.path),
            [dict(zip(self.columns, row)) for row in known],
            config.columns,
            config.fields,
            config.bad_share,
            config.partly,
        )

    def _first_rows(self) -> tuple[list[str], list[list[str]]]:
        rows = []
        for record in range(min(FIRST, len(self._numbers))):
            try:
                rows.append(self._cells(record))
            except BadSample as error:
                if record == 0:
                    raise DataError(str(error)) from None
        return rows[0], rows[1:]

    @classmethod
    def example(cls, folder: Path) -> Any:
        with open(folder / "bottles.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label", "count"])
            for count in range(24):
                writer.writerow([f'{count} bottles, or "so"', "many" if count > 9 else "few", count])
        return cls.Config(path=str(folder / "bottles.csv"))

    def __len__(self) -> int:
        return self._count

    def _cells(self, record: int) -> list[str]:
        data = self._data[self._starts[record] : self._starts[record + 1]]
        try:
            return self._dialect.cells(data.decode("utf-8").rstrip("\r\n"))
        except UnicodeDecodeError as error:
            raise BadSample(self._place(record), f"the byte 0x{data[error.start]:02x} is not UTF-8") from None
        except ValueError as error:
            raise BadSample(self._place(record), str(error)) from None

    def _place(self, record: int) -> str:
        return f"{self.path}:{self._numbers[record]}"

    def __getitem__(self, index: int) -> Sample:
        cells = self._cells(index + self._skipped)
        if len(cells) != len(self.columns):
            raise BadSample(self.where(index), f"has {len(cells)} cells instead of {len(self.columns)}")
        row, sample = dict(zip(self.columns, cells)), {}
        for name, kind in self._fields.items():
            try:
                sample[name] = cell(row[name], kind, name in self.config.partly)
            except ValueError as error:
                raise BadSample(self.where(index), f"{name!r} {error}") from None
        return sample

    def where(self, index: int) -> str:
        return self._place(index + self._skipped)
