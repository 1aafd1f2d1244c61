"""The card of an evaluation: figures beside what simple methods reach, one sentence, what leaked, calibration, pictures.

As a table in a terminal (`cells`, `lines`), as HTML, and as JSON whose layout stays (`schema`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

from sevenfold.core.errors import CheckpointError
from sevenfold.core.files import write_atomic
from sevenfold.evaluation.calibration import Calibration
from sevenfold.evaluation.interval import Beside, Figure, number
from sevenfold.evaluation.leaks import Leaks
from sevenfold.training.report import STYLE

SCHEMA = 1
MODEL = "this model"
TWIN = "the same backbone at random initialisation"
FOLDER = "evaluation"
CARDS = ("<!-- cards -->", "<!-- end of cards -->")
"""Between these, report.html of a run has its cards."""


@dataclass(frozen=True)
class Card:
    """One evaluation.

    name         what its files are called
    runs         the runs (seeds of one recipe), or the one model
    data         what was tested on
    samples      how many there were: tested; trained on by the read-outs; left out, and why
    how          what was asked and by which means: target, task, by, pool, …
    metric       the metric that the sentence is about
    rows         name → metric → Figure; the model first, then every baseline
    beside       the model against the best of the others
    told         the sentence
    leaks        test items that training items give away; None: not looked for
    clean        name → Figure of `metric`, without the leaked items; told_clean the sentence of these
    calibration  of probabilities; None: there are none
    notes        what a reader must know
    pictures     pieces of HTML, not in the JSON
    path         the page that was written, not in the JSON
    """

    name: str
    runs: tuple[str, ...]
    data: str
    samples: Mapping[str, Any]
    how: Mapping[str, str]
    metric: str
    rows: Mapping[str, Mapping[str, Figure]]
    beside: Beside | None = None
    told: str = ""
    leaks: Leaks | None = None
    clean: Mapping[str, Figure] = field(default_factory=dict)
    told_clean: str = ""
    calibration: Calibration | None = None
    notes: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def figure(self) -> Figure:
        """What the model reaches by the main metric."""
        return self.rows[MODEL][self.metric]

    def values(self, row: str = MODEL) -> dict[str, float]:
        """Metric → value of one row."""
        return {name: figure.value for name, figure in self.rows[row].items()}

    def plain(self) -> dict[str, Any]:
        """All of it as plain data, in the layout of the JSON."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "runs": list(self.runs),
            "data": self.data,
            "samples": dict(self.samples),
            "how": dict(self.how),
            "metric": self.metric,
            "rows": {row: {m: f.plain() for m, f in figures.items()} for row, figures in self.rows.items()},
            "beside": None
            if self.beside is None
            else {
                "against": self.beside.against,
                "difference": self.beside.difference.plain(),
                "beats": self.beside.beats,
            },
            "sentence": self.told,
            "leaks": None if self.leaks is None else self.leaks.plain(),
            "without_leaks": {row: figure.plain() for row, figure in self.clean.items()},
            "sentence_without_leaks": self.told_clean,
            "calibration": None if self.calibration is None else self.calibration.plain(),
            "notes": list(self.notes),
        }

    def json(self) -> str:
        return json.dumps(self.plain(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """(columns, rows) of the table: the main metric first, with its interval."""
        names = list(dict.fromkeys(metric for figures in self.rows.values() for metric in figures))
        names.sort(key=lambda name: name != self.metric)
        rows = [
            [row, *("" if name not in figures else figures[name].shown() if name == self.metric else number(figures[name].value)
                    for name in names)]
            for row, figures in self.rows.items()
        ]  # fmt: skip
        return ["", *names], rows

    def lines(self) -> list[str]:
        """What stands under the table, a line each."""
        found = [self.told] if self.told else []
        seeds = self.figure.seeds
        if len(seeds) > 1:
            span = self.figure.over_seeds
            reach = f", 95 %: {number(span[0])} … {number(span[1])}" if span else ""
            found.append(f"{self.metric} of {len(seeds)} seeds: {', '.join(map(number, seeds))}{reach}")
        if self.leaks is not None:
            found += self.leaks.lines()
        if self.told_clean:
            found.append(f"Without the leaked items: {self.told_clean}")
        if self.calibration is not None:
            found += self.calibration.lines()
        tested = self.samples["tested"]
        found.append(f"{tested:,} {'sample' if tested == 1 else 'samples'}: {self.data}")
        return [*found, *(f"Note: {note}" for note in self.notes)]

    def table(self) -> str:
        """The card as text."""
        columns, rows = self.cells()
        widths = [max(len(row[place]) for row in [columns, *rows]) for place in range(len(columns))]
        lines = [
            "  ".join(
                cell.rjust(w) if place else cell.ljust(w) for place, (cell, w) in enumerate(zip(row, widths))
            ).rstrip()
            for row in [columns, *rows]
        ]
        return "\n".join([*lines, *self.lines()])

    def section(self) -> str:
        """The card as a piece of HTML, without its pictures."""
        columns, rows = self.cells()
        head = "".join(f"<th>{escape(column)}</th>" for column in columns)
        body = "".join(
            "<tr>" + "".join(f"<td{' class=n' if place else ''}>{escape(cell)}</td>" for place, cell in enumerate(row)) + "</tr>"
            for row in rows
        )  # fmt: skip
        first, *rest = self.lines()
        how = ", ".join(f"{name}: {value}" for name, value in self.how.items())
        told = f"<p><strong>{escape(first)}</strong></p>" + "".join(f"<p>{escape(line)}</p>" for line in rest)
        return f"<h3>{escape(self.name)}</h3><p class=quiet>{escape(how)}</p><table><tr>{head}</tr>{body}</table>{told}"

    def html(self) -> str:
        """The card as a page of its own."""
        listed = "" if self.leaks is None else self.leaks.html()
        body = f"<h1>{escape(self.name)}</h1><p class=quiet>{escape(', '.join(self.runs))}</p>{self.section()}"
        return (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(self.name)}</title><style>{STYLE}</style>"
            f"<body>{body}{''.join(self.pictures)}{listed}</body></html>\n"
        )

    def written(self, folder: str | Path, report: Path | None = None) -> Card:
        """NAME.json and NAME.html into a folder, and the table into the report of a run, in place of the one that it had; returns
        the card with its path."""
        folder = Path(folder)
        try:
            write_atomic(folder / f"{self.name}.json", self.json())
            write_atomic(folder / f"{self.name}.html", self.html())
            if report is not None and report.is_file():
                write_atomic(report, self._into(report.read_text(encoding="utf-8")))
        except OSError as error:
            raise CheckpointError(f"{folder}: cannot be written: {error}; choose another --out") from None
        return replace(self, path=folder / f"{self.name}.html")

    def _into(self, page: str) -> str:
        """A report with this card in it."""
        begin, end = CARDS
        if begin not in page:
            page = page.replace("</body>", f"{begin}<h2>Evaluations</h2>{end}</body>")
        mine, close = f"<!-- card {escape(self.name)} -->", "<!-- end of card -->"
        link = f'<p><a href="{FOLDER}/{escape(self.name)}.html">with pictures</a></p>'
        piece = f"{mine}{self.section()}{link}{close}"
        if mine in page:
            before, _, rest = page.partition(mine)
            return before + piece + rest.partition(close)[2]
        return page.replace(end, piece + end)
