"""Tables for people: drawn with lines in a terminal, plain and aligned in a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print rows of text under their columns; the first `left` columns stand at the left, the others at the right."""
    if sys.stdout.isatty():
        _drawn(columns, rows, left)
        return
    every = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(row[place]) for row in every) for place in range(len(columns))]
    for row in every:
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        ]
        print("  ".join(cells).rstrip())


def _drawn(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD)
    for place, column in enumerate(columns):
        drawn.add_column(Text(column), justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)


def short(number: float) -> str:
    """1234567 → 1.23 M."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def mebibytes(count: float) -> str:
    """Bytes as KiB, MiB or GiB."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count / 1024:.1f} KiB"
