"""How a delimited file is written (delimiter, quotes, header), and where its records are."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sevenfold.data.source._columns import is_missing, sequence_kind

DELIMITERS = ",\t;|"
LONGEST = 1000
"""Lines of the longest quoted record; a quote that stays open for longer is one that was never closed."""


class Dialect(NamedTuple):
    """What stands between cells, and whether quotes wrap them."""

    delimiter: str
    quoted: bool

    def cells(self, record: str) -> list[str]:
        """The cells of one record; ValueError if it is not one."""
        try:
            rows = list(
                csv.reader(
                    [record],
                    delimiter=self.delimiter,
                    quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
                    strict=True,
                )
            )
        except csv.Error as error:
            raise ValueError(f"is not a line of a table: {error}") from None
        return rows[0] if rows else []


def dialect_of(head: str, delimiter: str | None) -> Dialect:
    """The dialect in which the most of the first records have one same number of cells, two or more if possible.

    Quotes count as such unless the lines are a table only without them (as in a .tsv of prose).
    """
    best, most = Dialect(delimiter or ",", True), (-1.0, -1)
    for character in delimiter or DELIMITERS:
        for quoted in (True, False) if '"' in head else (True,):
            dialect = Dialect(character, quoted)
            counts = _counts(head, dialect)
            columns, agreeing = Counter(counts).most_common(1)[0] if counts else (0, 0)
            agreement = agreeing / max(1, len(counts)) if columns > 1 else 0.0
            if (round(agreement, 2), columns) > most:
                best, most = dialect, (round(agreement, 2), columns)
    return best


def _counts(head: str, dialect: Dialect) -> list[int]:
    """The number of cells of each record; -1 for one that is broken."""
    counts = []
    data = head.encode("utf-8", "surrogatepass")
    starts, _ = records_of(data, dialect.quoted, None)
    for start, stop in zip(starts, starts[1:]):
        try:
            counts.append(len(dialect.cells(data[start:stop].decode("utf-8", "surrogatepass").rstrip("\r\n"))))
        except ValueError:
            counts.append(-1)
    return counts


def records_of(data: bytes, quoted: bool, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Where the records that are not blank start, with the end of the last, [n + 1]; and their line numbers, [n].

    A line end within quotes does not end a record, unless the quotes stay open for more than 1,000 lines.
    """
    starts: list[int] = []
    numbers: list[int] = []
    lines = io.BytesIO(data)
    place, number, quoted = 0, 0, quoted and b'"' in data
    while line := lines.readline():
        number += 1
        start, first = place, number
        place += len(line)
        if not line.strip():
            continue
        if quoted and line.count(b'"') % 2:
            more, count = _until_closed(lines, place)
            place, number = place + more, number + count
            lines.seek(place)
        if limit is not None and len(numbers) == limit:
            place = start
            break
        starts.append(start)
        numbers.append(first)
    return np.array([*starts, place], np.int64), np.array(numbers, np.int64)


def _until_closed(lines: io.BytesIO, place: int) -> tuple[int, int]:
    """Bytes and lines from here until the open quote is closed; none if it is not."""
    length = 0
    for count in range(1, LONGEST + 1):
        line = lines.readline()
        length += len(line)
        if not line:
            break
        if line.count(b'"') % 2:
            return length, count
    return 0, 0


def is_header(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first record names the columns: distinct short words, no number and no sequence among them, none of
    which is also a value in its column."""
    words = [word.strip() for word in first]
    named = [word for word in words if word]
    if not named or len(set(named)) < len(named) or len(named) < len(words) - 1 or max(map(len, named)) > 64:
        return False
    for column, word in enumerate(words):
        try:
            float(word)
            return False
        except ValueError:
            pass
        if not is_missing(word) and any(len(row) > column and row[column].strip() == word for row in rows):
            return False
    return all(sequence_kind([word]) is None for word in named)


def names_of(first: Sequence[str], header: bool) -> list[str]:
    """A distinct name for each column: from the header, or column_1, column_2 …"""
    names: list[str] = []
    for place, word in enumerate(first, 1):
        name = word.strip() if header and word.strip() else f"column_{place}"
        names.append(name if name not in names else f"{name}_{place}")
    return names
