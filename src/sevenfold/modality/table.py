"""A row of a table, for what nobody planned: a dict from column to word or number becomes one id a column.

Words are categories, numbers are binned by quantiles, a missing cell is an id of its own (`row`).
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization.row import row_of
from sevenfold.core import part
from sevenfold.modality import Augmentation, Modality, Suggestion
from sevenfold.modality._features import Features

LISTED = 12
"""Columns that a summary names."""


class Table(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("row")
        """How raw items become tokens."""
        pack: bool | None = False
        """Rows are not laid end to end."""

    axes = ("column",)

    def check(self, raw: Any) -> dict[str, str | float | None]:
        """A dict from column to word, finite number or None; with columns that the tokenizer knows, once it has learned."""
        row = row_of(raw)
        known = getattr(self.tokenizer, "columns", None)
        if known and not known.keys() & row.keys():
            raise ValueError(f"the row has none of the columns {', '.join(list(known)[:LISTED])}")
        return row

    def features(self, train: Sequence[Any]) -> tuple[Features, ...]:
        """Numbers as they are (the mean where one is missing), each frequent word of a column as 0 or 1, and what is missing."""
        rows = [row_of(raw) for raw in train]
        names = list(dict.fromkeys(name for row in rows for name in row))
        told: list[tuple[str, str | float | None]] = []
        for name in names:
            values = [row.get(name) for row in rows]
            counts = Counter(value for value in values if isinstance(value, str))
            numbers = [value for value in values if isinstance(value, float)]
            told += [(name, float(np.mean(numbers)))] if numbers else []
            told += [(name, word) for word, _ in counts.most_common(64)]
            told += [(name, None)] if None in values else []

        def columns(raws: Sequence[Any]) -> np.ndarray:
            found = np.zeros((len(raws), max(len(told), 1)), np.float32)
            for place, row in enumerate(map(row_of, raws)):
                for column, (name, what) in enumerate(told):
                    value = row.get(name)
                    if isinstance(what, float):
                        found[place, column] = value if isinstance(value, float) else what
                    else:
                        found[place, column] = value == what
            return found

        return (Features("columns of the table", columns),)

    def summary(self, raws: Sequence[Any]) -> dict[str, Any]:
        """Per column: how much is missing, and the range or the most frequent words; words never trained on are listed."""
        if not raws:
            return {"items": 0}
        rows = [row_of(raw) for raw in raws]
        names = list(dict.fromkeys(name for row in rows for name in row))
        facts: dict[str, Any] = {"items": len(rows), "columns": len(names)}
        for name in names[:LISTED]:
            values = [row.get(name) for row in rows]
            known = [value for value in values if value is not None]
            words = [value for value in known if isinstance(value, str)]
            if words:
                counts = sorted(Counter(words).items(), key=lambda pair: (-pair[1], pair[0]))
                told = f"{len(counts)} words, " + ", ".join(f"{word!r} {count}" for word, count in counts[:3])
            elif known:
                told = f"{min(known):g} … {max(known):g}"
            else:
                told = "nothing"
            lost = f", missing {100 * (1 - len(known) / len(rows)):.1f} %" if len(known) < len(rows) else ""
            facts[name.replace("\n", " ")] = " ".join(told.split()) + lost
        unknown = self._unknown(rows)
        if unknown:
            facts["never trained on"] = ", ".join(f"{told} {count}" for told, count in unknown)
        return facts

    def _unknown(self, rows: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
        """Values that become unknown, `column=value` → how often, the most frequent first."""
        known: dict[str, Any] = getattr(self.tokenizer, "columns", {})
        counts: Counter[str] = Counter()
        for row in rows:
            for name, value in row.items():
                column = known.get(name)
                wrong = isinstance(value, str) if isinstance(column, tuple) else str(value) not in (column or ())
                if value is not None and column is not None and wrong:
                    counts[f"{name}={str(value)[:40]!r}"] += 1
        return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:LISTED]

    def html(self, raw: Any) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(_said(value))}</td></tr>"
            for name, value in raw.items()
        )
        return f"<table>{cells}</table>"

    def plain(self, raw: Any) -> str:
        return ", ".join(f"{name}: {_said(value)}" for name, value in raw.items())

    def file(self, raw: Any) -> tuple[str, bytes]:
        """(".csv", a header and the row)."""
        file = io.StringIO()
        writer = csv.writer(file)
        writer.writerow(raw)
        writer.writerow(["" if value is None else _said(value) for value in raw.values()])
        return ".csv", file.getvalue().encode()

    def typed(self, text: str) -> dict[str, str | float | None]:
        """The row that is typed as JSON, {"column": value}, or as cells `column=value, column=value`."""
        try:
            return self.check(json.loads(text))
        except (json.JSONDecodeError, RecursionError):
            pass
        row: dict[str, Any] = {}
        for cell in text.split(","):
            name, found, value = cell.partition("=")
            if not found:
                raise ValueError(f"{text[:40]!r} is no row: write column=value, column=value")
            try:
                row[name.strip()] = float(value)
            except ValueError:
                row[name.strip()] = value.strip()
        return self.check(row)

    def content(self, raw: Any) -> bytes:
        """The cells as text, a comma between them."""
        return ",".join(_said(value) for value in self.check(raw).values()).encode()

    def edits(self, raw: Any, draw: np.random.Generator) -> dict[str, dict[str, Any]]:
        """One cell missing, one number one percent more, the columns in another order."""
        row = self.check(raw)
        names = list(row)
        gone = names[int(draw.integers(len(names)))]
        edits = {
            "one cell missing": {**row, gone: None},
            "columns reordered": {names[place]: row[names[place]] for place in draw.permutation(len(names))},
        }
        numbers = {name: value for name, value in row.items() if isinstance(value, float) and value}
        if numbers:
            name = list(numbers)[int(draw.integers(len(numbers)))]
            edits["one number one percent more"] = {**row, name: numbers[name] * 1.01}
        return edits

    def error(self, raw: Any, back: Any) -> float:
        """The share of cells that differ; a number counts as the same within one percent."""
        row = self.check(raw)
        return sum(not _alike(value, back.get(name)) for name, value in row.items()) / len(row)

    error_unit = "share of cells, numbers within 1 %"

    def augmentation(self) -> Augmentation:
        """Some cells missing; in pieces most."""
        return Augmentation(({"kind": "drop_columns", "rate": 0.3},), ({"kind": "drop_columns", "rate": 0.6},))

    @classmethod
    def suggest(cls, name: str, raws: Sequence[Any], items: int) -> Suggestion | None:
        """A token a column, a trunk that sees all of them, hidden cells filled in."""
        columns = len({column for raw in raws for column in raw})
        if columns < 2:
            return None
        bins = int(np.clip(items // 50, 4, 32))
        trunk = {"inputs": [name], "position": {"kind": "learned", "size": columns}, "block": {"dropout": 0.1}}
        return Suggestion(
            stream={"kind": "table", "tokenizer": {"kind": "row", "bins": bins}},
            trunks={"enc": trunk},
            objective={"kind": "masked_token", "ratio": 0.25},
            train={"batch": 64},
            tokens=float(columns),
            why=[
                f"{name}: a token for each of {columns} columns; numbers in up to {bins} bins of equally many rows",
                f"{name}: hidden cells are filled in from the others, so any column can be predicted from any other",
            ],
        )


def _said(value: Any) -> str:
    return "missing" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 0.01 * abs(one)
    return bool(one == other)
