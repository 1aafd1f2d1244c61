"""The figures of the lab as the rows of one table, for a terminal, a page and a document alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sevenfold.explain.measure import Measures

if TYPE_CHECKING:
    from sevenfold.explain.lab import Lab

REASONS = 4
"""Reasons of refusal that are told."""


class Row(NamedTuple):
    """One figure of every tokenizer.

    group   the property; label: what is counted
    cells   as text, one for each tokenizer; `values` the numbers behind them, None where there is none
    better  +1 where more is better, -1 where less is, 0 where neither is
    share   whether the values are shares of 1
    """

    group: str
    label: str
    cells: list[str]
    values: list[float | None]
    better: int = 0
    share: bool = False


def rows(lab: Lab) -> list[Row]:
    """The table, property by property."""
    found, modality = lab.measures, lab.made[0]
    gzip = lab.facts["gzip_bits_per_byte"]

    def row(
        group: str, label: str, value: Callable[[Measures], float | None], better: int, form: str = "", share: bool = False
    ) -> Row:  # fmt: skip
        values = [value(one) for one in found]
        cells = [_share(number) if share else _number(number, form) for number in values]
        return Row(group, label, cells, values, better, share)

    table = [
        Row("", "tokens are", [_are(one) for one in found], [None] * len(found)),
        row("lossless", "items that come back exactly", lambda one: one.lossless, 1, share=True),
        row("lossless", f"mean error ({modality.error_unit})", lambda one: one.error, -1, ".3g"),
    ]
    for edit in dict.fromkeys(name for one in found for name in one.stable):
        each = [one.stable.get(edit) for one in found]
        shares = [None if one is None else one.share for one in each]
        cells = ["–" if one is None else f"{_share(one.share)} ({_number(one.tokens, '.3g')})" for one in each]
        table.append(Row("stable", f"{edit}: tokens that change", cells, shares, -1, True))
        aside = [None if one is None else one.order_aside for one in each]
        if any(a is not None and b is not None and b - a > 0.02 for a, b in zip(aside, shares)):
            cells = [_share(number) for number in aside]
            table.append(Row("stable", f"{edit}: order aside", cells, aside, -1, True))
    table += [
        row("efficient", "tokens a byte", lambda one: one.tokens_per_byte, -1, ".3g"),
        row("efficient", "tokens an item", lambda one: one.tokens_per_item, -1, ",.1f"),
    ]
    if any(one.numbers_per_byte is not None for one in found):
        table.append(row("efficient", "real numbers a byte", lambda one: one.numbers_per_byte, -1, ".3g"))
    table += [
        row("efficient", "bits a byte, log2(ids) a token", lambda one: one.bits_per_byte, -1, ".2f"),
        row("efficient", "bits a byte, entropy of the ids", lambda one: one.entropy_bits_per_byte, -1, ".2f"),
        row("efficient", f"log2(ids) against gzip ({gzip:.2f} bits)", lambda one: _ratio(one, gzip), -1, ".2f"),
        row("efficient", "ids that are used", lambda one: one.ids_used, 0, share=True),
        row("universal", "items that encode", lambda one: one.encoded, 1, share=True),
        row("universal", "tokens that are known", lambda one: one.known, 1, share=True),
    ]
    what = f"boundaries against {modality.unit}"
    if any(one.f1 is not None for one in found):
        table += [
            row("learnable", f"{what}: F1", lambda one: one.f1, 1, share=True),
            row("learnable", "precision", lambda one: one.precision, 1, share=True),
            row("learnable", "recall", lambda one: one.recall, 1, share=True),
        ]
    else:
        table.append(Row("learnable", what, ["not known"] * len(found), [None] * len(found)))
    table.append(row("speed", "MB/s, encoding, one process", lambda one: one.megabytes_per_second, 1, ".3g"))
    return [row for row in table if row.group in ("", "learnable") or any(value is not None for value in row.values)]


def best(row: Row) -> set[int]:
    """Which cells are the best of their row; none if all are equal or nothing is better."""
    values = [None if value is None else row.better * round(value, 6) for value in row.values]
    known = [value for value in values if value is not None]
    if not row.better or len(known) < 2 or min(known) == max(known):
        return set()
    return {place for place, value in enumerate(values) if value == max(known)}


def told(lab: Lab) -> list[str]:
    """On what the figures were made, a line each."""
    facts = lab.facts
    lines = [
        f"{lab.field} ({lab.kind}), {_items(facts['items'])}: {facts['train']:,} to train on, {facts['held_out']:,} held out",
        f"learned from {_items(facts['learned_from'])} of the training data; measured on "
        f"{_items(facts['measured_on'])} {'held out' if facts['held_out'] else 'of the same, as none is held out'} "
        f"({facts['measured_bytes']:,} bytes); round trip of "
        + (
            f"all {_items(facts['items'])}"
            if facts["round_trip"] == facts["items"]
            else f"{facts['round_trip']:,} of {_items(facts['items'])}"
        ),
    ]
    lines += [f"cannot be used: {_items(count)}: {why}" for why, count in facts["refused"]]
    return lines + lab.notes


def missed(one: Measures) -> list[str]:
    """What a tokenizer did not know or refused, a line each."""
    lines = []
    if one.unknown:
        lines.append("unknown: " + ", ".join(f"{symbol!r} {count:,}" for symbol, count in one.unknown))
    lines += [f"refused: {_items(count)}: {why}" for why, count in one.refused[:REASONS]]
    rest = sum(count for _, count in one.refused[REASONS:])
    return lines + [f"refused: {_items(rest)} for other reasons"] * bool(rest)


def _items(count: int) -> str:
    return f"{count:,} item{'' if count == 1 else 's'}"


def _are(one: Measures) -> str:
    kind = f"{one.size:,} ids" if one.size is not None else f"vectors of {one.features:,}"
    return kind + (
        f", {one.coordinates} coordinate{'s' if one.coordinates > 1 else ''} each" if one.coordinates else ""
    )


def _ratio(one: Measures, gzip: float) -> float | None:
    return None if one.bits_per_byte is None or not gzip else one.bits_per_byte / gzip


def _number(number: float | None, form: str) -> str:
    if number is None:
        return "–"
    return "0" if number == 0 else format(number, ",.0f" if number >= 1000 else form)


def _share(share: float | None) -> str:
    """As percent; 100 and 0 are said only where they are exact."""
    if share is None:
        return "–"
    percent = 100 * share
    if percent in (0, 100):
        return f"{percent:.0f} %"
    return f"{min(max(percent, 0.01), 99.99):.2f} %" if percent < 1 or percent > 99 else f"{percent:.1f} %"


def markdown(lab: Lab) -> str:
    """The table as Markdown."""
    names = [one.name for one in lab.measures]
    lines = ["| | | " + " | ".join(f"`{name}`" for name in names) + " |", "|---|---|" + "---:|" * len(names)]
    group = ""
    for row in rows(lab):
        good = best(row)
        cells = [f"**{cell}**" if place in good else cell for place, cell in enumerate(row.cells)]
        label = row.label.replace("|", "\\|")
        lines.append(f"| {row.group if row.group != group else ''} | {label} | {' | '.join(cells)} |")
        group = row.group
    return "\n".join(lines) + "\n"


def pairs(names: Sequence[str]) -> str:
    """Names as a sentence has them."""
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
