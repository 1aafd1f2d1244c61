"""Time series: a table with a row a time step (.csv, .tsv, .npy), or the archive's .ts with a series a line.

    date,load,oil                        a .csv: one long series, cut into pieces of `length` steps; its end is held out
    2016-07-01 00:00:00,5.8,30.5
    1.5,1.7,?:0.2,0.1,0.3:vowel_a        a .ts: channels divided by `:`, ? where a value is missing, the label last

The .ts files of the UCR and UEA archives (arXiv:1810.07758); electricity, traffic and weather sets as they are passed
around for forecasting. Rows of an .npz or .npy that are a series each are read by `arrays`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.errors import BadSample, DataError, did_you_mean
from sevenfold.data.source import Sample, Source, suffix
from sevenfold.data.source._columns import is_missing
from sevenfold.data.source._delimited import dialect_of, is_header, names_of
from sevenfold.data.source._files import HEAD, LARGEST, head_of, not_text, read_bytes

MOMENT = re.compile(r"\d{4}[-/]\d{1,2}[-/]\d{1,2}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)?Z?")
"""A date, perhaps with a time."""
TABLES = (".csv", ".tsv", ".npy")


class Series(Source):
    """Samples are {"series": float32 [T] or [T C], NaN where a value is missing}, with "label" where a .ts has labels."""

    class Config(Source.Config):
        columns: list[str] | None = None
        """Columns of a table to read; by default all that hold numbers."""
        length: int | None = Field(None, ge=1)
        """Time steps of a piece of a table; by default a sixteenth of it, at most 512."""
        hop: int | None = Field(None, ge=1)
        """Time steps from one training piece to the next; by default a quarter of `length`. Held-out pieces never overlap."""
        held_out: float = Field(default=0.1, gt=0, lt=1)
        """The share that is never trained on: of a table its end, so that it makes several pieces."""
        largest_bytes: int = Field(default=LARGEST, ge=1)
        """The file, unpacked, may not be longer than this; it is held in memory."""

    suffixes = (".ts",)

    def __init__(self, config: Any):
        super().__init__(config)
        self._lines: list[tuple[int, str]] = []
        self._labelled = False
        self._pieces: list[tuple[int, int]] = []
        self._held_out_from = 0
        if suffix(self.path) == ".ts":
            self._read_archive()
            return
        self._values, self.names, self._notes = read_table(self.path, config.columns, config.largest_bytes)
        self._cut()

    def _read_archive(self) -> None:
        data = read_bytes(self.path, self.config.largest_bytes)
        if why := not_text(data):
            raise DataError(f"{self.path}: {why}")
        began = False
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            line = line.strip()
            if not line or line.startswith(("#", "%")):
                continue
            if began:
                self._lines.append((number, line))
                if len(self._lines) == self.config.limit:
                    break
            elif line.startswith("@"):
                words = line.lower().split()
                began = words[0] == "@data"
                if words[0] == "@timestamps" and words[1:] == ["true"]:
                    raise DataError(
                        f"{self.path}: has time stamps in its cells, which are not read: write plain numbers"
                    )
                if words[0] == "@classlabel":
                    self._labelled = words[1:2] == ["true"]
        if not self._lines:
            raise DataError(f"{self.path}: has no series after a line @data")

    def _cut(self) -> None:
        """Pieces of the training rows, then of the held-out end."""
        rows, share = len(self._values), self.config.held_out
        length = min(self.config.length or min(512, max(1, rows // 16)), rows)
        hop = self.config.hop or max(1, length // 4)
        border = rows - max(length, int(rows * share))
        train = [(start, start + length) for start in range(0, border - length + 1, hop)]
        held_out = [(start, min(start + length, rows)) for start in range(border, rows, length)]
        if not train:
            raise DataError(
                f"{self.path}: {rows} rows are too few for pieces of {length}: set length to {max(1, rows // 4)}"
            )
        limit = self.config.limit
        if limit is not None and len(train) + len(held_out) > limit:
            kept = min(len(held_out), max(1, round(limit * share)))
            train, held_out = train[: limit - kept], held_out[:kept]
        self._pieces, self._held_out_from = train + held_out, len(train)

    @classmethod
    def example(cls, folder: Path) -> Any:
        days = [f"2020-{month:02}-{day:02}" for month in range(1, 13) for day in range(1, 29)]
        with open(folder / "tides.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["date", "high", "low"])
            for place, day in enumerate(days):
                writer.writerow(
                    [day, round(3 + np.sin(place / 5), 4), "" if place == 9 else round(np.cos(place / 7), 4)]
                )
        return cls.Config(path=str(folder / "tides.csv"), length=16)

    @classmethod
    def recognises(cls, path: Path) -> float:
        """A .ts with @data, or a table whose first column is a date that grows, with numbers beside it."""
        if not path.is_file():
            return 0.0
        if suffix(path) == ".ts":
            return 0.7 if b"@data" in head_of(path).lower() else 0.0
        if suffix(path) not in (".csv", ".tsv"):
            return 0.0
        text = head_of(path).decode("utf-8", "replace")
        lines = text.splitlines()[:50]
        rows = [row for row in csv.reader(lines, delimiter=dialect_of("\n".join(lines), None).delimiter) if row]
        moments = [row[0].strip() for row in rows[1:]]
        if len(moments) < 8 or not all(MOMENT.fullmatch(moment) for moment in moments):
            return 0.0
        rising = all(one < other for one, other in zip(moments, moments[1:]))
        return 0.6 if rising and all(any(_number(cell) is not None for cell in row[1:]) for row in rows[1:]) else 0.0

    @property
    def fields(self) -> dict[str, str]:
        return {"series": "series", **({"label": "label"} if self._labelled else {})}

    def __len__(self) -> int:
        return len(self._lines or self._pieces)

    def __getitem__(self, index: int) -> Sample:
        if not self._lines:
            start, stop = self._pieces[index]
            values = self._values[start:stop]
            return {"series": np.ascontiguousarray(values[:, 0] if values.shape[1] == 1 else values)}
        parts = self._lines[index][1].split(":")
        label = parts.pop() if self._labelled and len(parts) > 1 else None
        if self._labelled and label is None:
            raise BadSample(self.where(index), "has no label behind its values")
        columns = []
        for part in parts:
            numbers = [_number(cell) for cell in part.split(",")]
            if None in numbers:
                cell = part.split(",")[numbers.index(None)]
                raise BadSample(self.where(index), f"has {cell[:40]!r}, not a number")
            columns.append(numbers)
        if len({len(column) for column in columns}) > 1:
            raise BadSample(self.where(index), f"has channels of {' and '.join(map(str, map(len, columns)))} values")
        values = np.array(columns, np.float32).T
        sample: Sample = {"series": values[:, 0] if values.shape[1] == 1 else np.ascontiguousarray(values)}
        return {**sample, "label": label.strip()} if label is not None else sample

    def where(self, index: int) -> str:
        if self._lines:
            return f"{self.path}:{self._lines[index][0]}"
        return f"{self.path}: rows {self._pieces[index][0]} to {self._pieces[index][1]}"

    def split(self) -> tuple[Sequence[int], Sequence[int]]:
        """Of a table its end is held out, so what is measured lies after what was learned from."""
        if self._lines:
            return super().split()
        return list(range(self._held_out_from)), list(range(self._held_out_from, len(self)))


def read_table(
    path: str | Path, columns: list[str] | None = None, largest: int = LARGEST
) -> tuple[np.ndarray, list[str], list[str]]:
    """(the numbers of a table, [T C] float32, NaN where one is missing; the names of its columns; notes on those left
    out). DataError, one line, if it has none."""
    path = Path(path).expanduser()
    if suffix(path) not in TABLES:
        raise DataError(f"{path}: is no table of numbers; read are {', '.join(TABLES)}")
    data = read_bytes(path, largest)
    if suffix(path) == ".npy":
        try:
            values = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise DataError(f"{path}: is not a whole .npy file: {(str(error).splitlines() or [''])[0]}") from None
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or values.dtype.kind not in "iuf" or not values.size:
            raise DataError(
                f"{path}: holds {list(values.shape)} {values.dtype}, not a series [time channels] of numbers"
            )
        return values.astype(np.float32), [f"column_{place}" for place in range(1, values.shape[1] + 1)], []
    if why := not_text(data):
        raise DataError(f"{path}: {why}")
    text = data.decode("utf-8", "replace")
    dialect = dialect_of(text[:HEAD].rpartition("\n")[0] or text, "\t" if suffix(path) == ".tsv" else None)
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=dialect.delimiter) if row]
    except csv.Error as error:
        raise DataError(f"{path}: is not a table: {error}") from None
    header = is_header(rows[0], rows[1:1000])
    names = names_of(rows[0], header)
    rows = rows[int(header) :]
    for place, row in enumerate(rows):
        if len(row) != len(names):
            raise DataError(f"{path}: row {place + 1} has {len(row)} cells instead of {len(names)}")
    for name in columns or ():
        if name not in names:
            raise DataError(f"{path}: there is no column {name!r}{did_you_mean(name, names)}")
    found, kept, left = [], [], []
    for place, name in enumerate(names):
        if columns is not None and name not in columns:
            continue
        numbers = [_number(row[place]) for row in rows]
        if None in numbers and columns is not None:
            wrong = rows[numbers.index(None)][place]
            raise DataError(f"{path}: row {numbers.index(None) + 1}: {name!r} is {wrong[:40]!r}, not a number")
        if None in numbers:
            left.append(name)
        else:
            found.append(np.array(numbers, np.float32))
            kept.append(name)
    if not found or not any(np.isfinite(column).any() for column in found):
        raise DataError(f"{path}: has no column of numbers; there are {', '.join(map(repr, names[:20]))}")
    return np.stack(found, axis=1), kept, [f"{path}: left out: {', '.join(map(repr, left))}"] if left else []


def _number(cell: str) -> float | None:
    """A cell as a number, NaN where it says that there is none; None for anything else."""
    if is_missing(cell):
        return float("nan")
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if abs(number) < 1e30 else None
