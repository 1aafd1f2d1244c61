"""Tables whose rows are one item each, all columns together: .csv, .tsv, .jsonl, .ndjson, also .gz; .parquet.

    species,island,bill_length_mm,sex        one sample: {"row": {"species": "Adelie", "island": …, "bill_length_mm": 39.1}}
    Adelie,Torgersen,39.1,male

Columns of numbers give floats, others words; a missing cell is None and keeps its row. A column of prose or sequences is
left out unless it is named. `csv`, `jsonl` and `parquet` read the same files with a field for each column; unless a
recipe says which, `rows` reads a .csv or .tsv of two columns or more that are all numbers or few different words, and
no other file.

Penguins, wine quality and the other sets of the UCI archive.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from sevenfold.core.errors import BadSample, DataError, did_you_mean
from sevenfold.data.source import Sample, Source, suffix
from sevenfold.data.source._columns import FIRST, convert, is_missing, kind_of
from sevenfold.data.source._delimited import dialect_of, is_header, names_of, records_of
from sevenfold.data.source._files import LARGEST, head_of
from sevenfold.data.source.csv import Csv
from sevenfold.data.source.jsonl import Jsonl
from sevenfold.data.source.parquet import Parquet

CELLS = ("number", "label")
"""Kinds of columns that are read unless others are named."""
ROW = "row"


class Rows(Source):
    """Samples are {"row": dict from column to word, float or None}, with the target beside it if there is one."""

    class Config(Source.Config):
        columns: list[str] | None = None
        """The columns of a row; by default all of numbers or of few different words."""
        target: str | None = None
        """A column that is not part of the row, but a field of its own (a label or a number), to be predicted."""
        fields: dict[str, str] | None = None
        """Column → `number` or `label`, where it is not what it looks like."""
        largest_bytes: int = Field(default=LARGEST, ge=1)
        """The file, unpacked, may not be longer than this; it is held in memory."""

    def __init__(self, config: Any):
        super().__init__(config)
        reader = next((one for one in (Jsonl, Parquet) if suffix(self.path) in one.suffixes), Csv)
        self._inner: Any = reader.Config(path=config.path, largest_bytes=config.largest_bytes, bad_share=1.0).build()
        rows = []
        for index in range(min(FIRST, len(self._inner))):
            try:
                rows.append(self._cells(index))
            except BadSample:
                continue
        names = list(dict.fromkeys(name for row in rows for name in row))
        for name in (*(config.columns or ()), *(config.fields or ()), *([config.target] if config.target else [])):
            if name not in names:
                raise DataError(f"{self.path}: there is no column {name!r}{did_you_mean(name, names)}")
        self._kinds: dict[str, str] = {}
        left = []
        for name in names:
            kind = (config.fields or {}).get(name) or kind_of(name, [row.get(name) for row in rows])
            if kind not in CELLS and (config.columns is None or name not in config.columns):
                left.append(name)
            elif config.columns is None or name in (*config.columns, config.target):
                self._kinds[name] = kind if kind in CELLS else "label"
        if config.target is not None and config.target not in self._kinds:
            raise DataError(
                f"{self.path}: the target {config.target!r} is no column of numbers or of few different words"
            )
        self._target = config.target
        if not [name for name in self._kinds if name != self._target]:
            raise DataError(
                f"{self.path}: no column holds numbers or few different words; there are {', '.join(names)}"
            )
        self._fields = {ROW: "table"} | ({self._target: self._kinds[self._target]} if self._target else {})
        if reader is Csv:
            self._notes = [f"{self.path}: a row is one item; kind: csv reads a field for each column"]
        if left:
            self._notes.append(f"{self.path}: left out: {', '.join(map(repr, left))}")

    def _cells(self, index: int) -> dict[str, Any]:
        """Column → cell, as it is written."""
        if not isinstance(self._inner, Csv):
            return self._inner._row(index)
        cells = self._inner._cells(index + self._inner._skipped)
        if len(cells) != len(self._inner.columns):
            raise BadSample(self.where(index), f"has {len(cells)} cells instead of {len(self._inner.columns)}")
        return dict(zip(self._inner.columns, cells))

    @classmethod
    def example(cls, folder: Path) -> Any:
        lines = [f"{('oak', 'elm', 'fir')[n % 3]},{n}.5,{n * n if n % 5 else ''}" for n in range(30)]
        (folder / "trees.csv").write_text("\n".join(["kind,height,age", *lines, ""]), encoding="utf-8")
        return cls.Config(path=str(folder / "trees.csv"))

    @classmethod
    def recognises(cls, path: Path) -> float:
        """A .csv or .tsv of two columns or more, all of them numbers or few different words."""
        if not path.is_file() or suffix(path) not in Csv.suffixes:
            return 0.0
        head = head_of(path)
        text = (head[: head.rfind(b"\n") + 1] or head).decode("utf-8", "replace")
        dialect = dialect_of(text, "\t" if suffix(path) == ".tsv" else None)
        data, rows = text.encode(), []
        starts, _ = records_of(data, dialect.quoted, FIRST)
        for start, stop in zip(starts, starts[1:]):
            try:
                rows.append(dialect.cells(data[start:stop].decode("utf-8", "replace").rstrip("\r\n")))
            except ValueError:
                continue
        if not rows or len(rows[0]) < 2:
            return 0.0
        header = is_header(rows[0], rows[1:])
        names, body = names_of(rows[0], header), [row for row in rows[int(header) :] if len(row) == len(rows[0])]
        kinds = [kind_of(name, [row[place] for row in body]) for place, name in enumerate(names)]
        return 0.55 if body and all(kind in (*CELLS, None) for kind in kinds) else 0.0

    def no_field(self, name: str) -> str:
        """A column that is part of the rows is one that is learned from."""
        if name not in self._kinds:
            return super().no_field(name)
        return (
            f"{name!r} is a column of the rows that the model reads: begin with `sevenfold pretrain FILE --target {name}` (data.target), "
            "so that it is left out of them"
        )

    def __len__(self) -> int:
        return min(len(self._inner), self.config.limit or len(self._inner))

    def __getitem__(self, index: int) -> Sample:
        cells = self._cells(index)
        row: dict[str, str | float | None] = {}
        for name, kind in self._kinds.items():
            try:
                row[name] = None if is_missing(cells.get(name)) else convert(cells[name], kind)
            except ValueError as error:
                raise BadSample(self.where(index), f"{name!r} {error}") from None
        sample: Sample = {ROW: row}
        if self._target is not None:
            value = row.pop(self._target)
            if value is None and self._target not in self.config.partly:
                raise BadSample(
                    self.where(index),
                    f"{self._target!r} is missing: name it in data.partly if some samples may lack it",
                )
            sample[self._target] = value
        return sample

    def where(self, index: int) -> str:
        return self._inner.where(index)
