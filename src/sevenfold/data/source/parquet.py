"""Parquet: a file, a folder of them or a pattern (`part-{000..099}.parquet`), here or at a URL, read one row group at a time. Needs
the extra `parquet`.

What a column holds (text, label, number, dna, protein, array) is told from the first 1,000 rows, as in JSON lines;
columns of objects are left out.

Most text, instruction and preference sets on the hubs.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.errors import BadSample, DataError, need_extra
from sevenfold.core.seeds import seed_of
from sevenfold.data.arranged import AHEAD, Shelves
from sevenfold.data.remote import base
from sevenfold.data.sharded import write_array
from sevenfold.data.source import Sample, suffix
from sevenfold.data.source._columns import FIRST, cell, choose
from sevenfold.data.source._files import LARGEST, expands_to, list_files
from sevenfold.data.source._raw import NOWHERE, Pieces

FEWEST, MOST = 3, 256
"""Row groups that are mixed, and one more is kept in memory: as many as fit into"""
TOGETHER = 512 << 20
"""bytes, by what the files say of their sizes."""


class Parquet(Pieces):
    """Samples are the rows, by column."""

    class Config(Pieces.Config):
        columns: list[str] | None = None
        """The columns to read; by default all that can be read."""
        fields: dict[str, str] | None = None
        """Column → `text`, `label`, `number`, `dna`, `protein` or `array`, where it is not what it looks like."""
        largest_bytes: int = Field(default=LARGEST, ge=1)
        """No row group, unpacked, may be longer than this; as many as fit into 512 MiB are held in memory, but four at least."""

    suffixes = (".parquet", ".pq")

    def __init__(self, config: Any):
        super().__init__(config)
        self._groups: list[tuple[int, int, int]] = []
        self._largest: Counter[str] = Counter()
        """Column → the most bytes that it has in a row group."""
        self._mixed = FEWEST
        self._starts, self._file_starts = [0], [0]
        for number in range(len(self._raw)):
            self._look(number)
            self._file_starts.append(self._starts[-1])
            if config.limit is not None and self._starts[-1] >= config.limit:
                break
        if not self._groups:
            raise DataError(f"{self._said}: has no rows")
        self._cache: OrderedDict[int, Any] = OrderedDict()
        self._columns: list[str] | None = None
        try:
            rows = self._rows(0).slice(0, FIRST).to_pylist()
        except Exception as error:
            raise DataError(f"{self._raw.names[0]}: cannot be read: {str(error).splitlines()[0]}") from None
        self._fields, self._notes = choose(
            self._said, rows, config.columns, config.fields, config.bad_share, config.partly
        )
        self._columns = list(self._fields)
        size = sum(
            most
            for path, most in self._largest.items()
            if any(f"{path}.".startswith(f"{one}.") for one in self._fields)
        )
        self._mixed = max(FEWEST, min(MOST, TOGETHER // max(size, 1)))
        self._cache.clear()

    def _look(self, number: int) -> None:
        file, whole = self._raw.names[number], self._raw.sizes[number]
        if whole == 0:
            raise DataError(f"{file}: is empty")
        metadata, first = self._raw.look(number, partial(_opened, file)).metadata, 0
        for group in range(metadata.num_row_groups):
            told = metadata.row_group(group)
            size, count = told.total_byte_size, told.num_rows
            most = expands_to(whole, self.config.largest_bytes)
            if size > most:
                raise DataError(f"{file}: row group {group} {_too_long(size, most)}")
            for column in map(told.column, range(told.num_columns)):
                self._largest |= Counter({column.path_in_schema: column.total_uncompressed_size})
            if count:
                self._groups.append((number, group, first))
                self._starts.append(self._starts[-1] + count)
                first += count

    def _rows(self, number: int) -> Any:
        if number not in self._cache:
            of, group, _ = self._groups[number]
            table = self._raw.used(of, partial(_group, self._raw.names[of], group, self._columns))
            size, most = _unfolded(table), expands_to(self._raw.sizes[of], self.config.largest_bytes)
            if size > most:
                raise ValueError(_too_long(size, most))
            self._cache[number] = table
            while len(self._cache) > self._mixed + 1 or len(self._cache) > FEWEST + 1 and self._too_many():
                self._cache.popitem(last=False)
        self._cache.move_to_end(number)
        return self._cache[number]

    def _too_many(self) -> bool:
        """Whether the row groups in memory take far more than was told of them."""
        return sum(table.nbytes for table in self._cache.values()) > 2 * TOGETHER

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": OrderedDict()}

    @classmethod
    def example(cls, folder: Path) -> Any:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            need_extra("pyarrow", "parquet", error)
        rows = [
            {"text": f"{n} bottles on the wall", "label": "many" if n > 9 else "few", "count": n} for n in range(24)
        ]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "bottles.parquet", row_group_size=7)
        return cls.Config(path=str(folder / "bottles.parquet"))

    @classmethod
    def recognises(cls, path: Path) -> float:
        if path.is_dir():
            files = list_files(path)
            share = sum(suffix(file) in cls.suffixes for file in files) / max(1, len(files))
            return 0.6 * share if share > 0.5 else 0.0
        return super().recognises(path)

    def __len__(self) -> int:
        return min(self._starts[-1], self.config.limit or self._starts[-1])

    @cached_property
    def shelves(self) -> Shelves | None:
        """Row groups, where not all find room in memory: each is read once in an epoch by each process. They come as the files do."""
        files = super().shelves
        if len(self._groups) <= self._mixed + 1:
            return files
        if files is not None:
            firsts = np.searchsorted([of for of, _, _ in self._groups], np.arange(len(self._file_starts)))
            files = files._replace(bounds=firsts)
        return Shelves(np.minimum(self._starts, len(self)), self._mixed, self._ahead, files=files)

    def _ahead(self, parts: Sequence[int]) -> None:
        self._raw.ahead(sorted({self._groups[part][0] for part in parts}))

    def _row(self, index: int) -> dict[str, Any]:
        number = bisect_right(self._starts, index) - 1
        try:
            row: dict[str, Any] = self._rows(number).slice(index - self._starts[number], 1).to_pylist()[0]
        except Exception as error:  # damaged files raise anything
            raise BadSample(self.where(index), f"its row group cannot be read: {str(error).splitlines()[0]}") from None
        return row

    def __getitem__(self, index: int) -> Sample:
        row, sample = self._row(index), {}
        for name, kind in self._fields.items():
            if row[name] is None and name not in self.config.partly:
                raise BadSample(
                    self.where(index), f"{name!r} is missing: name it in data.partly if some samples may lack it"
                )
            try:
                sample[name] = cell(row[name], kind, name in self.config.partly)
            except ValueError as error:
                raise BadSample(self.where(index), f"{name!r} {error}") from None
        return sample

    def _places(self, number: int) -> np.ndarray:
        first, stop = self._file_starts[number], self._file_starts[number + 1]
        said = json.dumps([self._raw.marks[number], self._fields, self.config.partly, self.config.largest_bytes])
        kept = base() / "parquet" / f"{hashlib.sha256(said.encode()).hexdigest()[:24]}.npy"
        with suppress(Exception):  # not there, or damaged
            found = np.load(kept, allow_pickle=False)
            if found.dtype == np.int64 and found.shape == (stop - first,) and (found >= 0).all():
                return np.asarray(found)
        self._raw.ahead(range(number + 1, min(number + 1 + AHEAD, len(self._file_starts) - 1)))
        self._raw.used(number, str)  # a transfer that breaks is no bad row
        found = np.full(stop - first, NOWHERE, np.int64)
        for index in range(first, stop):
            with suppress(BadSample):
                found[index - first] = seed_of("held out", self.key(index))
        with suppress(OSError):
            write_array(kept, found)
        return found

    def where(self, index: int) -> str:
        number = bisect_right(self._starts, index) - 1
        of, _, first = self._groups[number]
        return f"{self._raw.names[of]}:row {first + index - self._starts[number]}"


def _opened(name: str, file: Any) -> Any:
    """Opened anew for each row group: worker processes must not share a place in a file."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        need_extra("pyarrow", "parquet", error)
    try:
        schema = pyarrow.parquet.read_schema(file)
        texts = [field.name for field in schema if field.type in (pyarrow.string(), pyarrow.binary())]
        return pyarrow.parquet.ParquetFile(file, read_dictionary=texts)
    except Exception as error:  # damaged files raise anything
        raise DataError(f"{name}: is not a whole parquet file: {str(error).splitlines()[0]}") from None


def _group(name: str, group: int, columns: list[str] | None, path: Path) -> Any:
    return _opened(name, path).read_row_group(group, columns=columns, use_threads=False)


def _too_long(size: int, most: int) -> str:
    return f"holds {size:,} bytes, and {most:,} are allowed: write it with smaller row groups, or raise largest_bytes"


def _unfolded(table: Any) -> int:
    """Bytes of a table whose words are kept once each (dictionaries), with every word written out."""
    import pyarrow
    import pyarrow.compute

    size = table.nbytes
    for column in table.columns:
        for chunk in column.chunks if pyarrow.types.is_dictionary(column.type) else ():
            lengths = pyarrow.compute.binary_length(chunk.dictionary).to_numpy(zero_copy_only=False)
            size += int(lengths[chunk.indices.drop_null().to_numpy()].sum(dtype="int64"))
    return size
