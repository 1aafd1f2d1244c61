"""The tokenizer lab: several tokenizers on the same data, with the five properties of each as figures.

    lab = tokens("speech.txt", ["bpe:4096", "wordpiece:4096", "bytes"])
    lab.page()                                # one self-contained HTML page
    lab.figures()                             # the same as plain data

They learn from training items, are measured on held-out ones, and the round trip is tried on both. How each figure is
made stands in sevenfold.explain.measure. It works on every modality by its contract alone.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sevenfold.core import notation
from sevenfold.core.errors import BadSample, ConfigError, DataError, SevenfoldError, did_you_mean
from sevenfold.core.part import decode, find
from sevenfold.core.rooms import kinds
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.recognise import recognise
from sevenfold.data.source import Source
from sevenfold.explain.measure import Data, Measures, encodes, measure, reason
from sevenfold.modality import Modality

ITEMS = 10_000
"""Items on which the round trip is tried, unless told."""
LEARN_ITEMS, LEARN_BYTES = 20_000, 8_000_000
"""What tokenizers learn from, at most."""
HELD_OUT_ITEMS, HELD_OUT_BYTES = 1000, 4_000_000
"""What they are measured on, at most."""
ALL_BYTES = 32_000_000
"""What is taken through the round trip, at most."""
TRIED = 16
"""Items that a tokenizer nobody asked for must take, half of them at least, to be compared."""

Note = Callable[[str], None]


class Lab(NamedTuple):
    """What was measured: `made` holds the fitted modalities in the order of `measures`, `shown` held-out excerpts."""

    path: str
    field: str
    kind: str
    facts: dict[str, Any]
    measures: list[Measures]
    made: list[Modality]
    shown: list[Any]
    notes: list[str]

    def figures(self) -> dict[str, Any]:
        """Everything as plain data, for JSON."""
        record = {name: getattr(self, name) for name in ("path", "field", "kind", "facts", "notes")}
        return {**record, "tokenizers": [found._asdict() for found in self.measures]}

    def page(self) -> str:
        """The page, as HTML that needs nothing else and runs nothing."""
        from sevenfold.explain.lab_page import page

        return page(self)


def tokens(
    data: str | Path | Source.Config, tokenizers: Sequence[str] = (), *, field: str | None = None, items: int = ITEMS,
    show: int = 3, seed: int = 0, note: Note = lambda _: None,
) -> Lab:  # fmt: skip
    """Compare tokenizers on a file or folder.

    tokenizers  each `kind`, `kind:NUMBER` (its first whole-number setting) or `kind:field=value;field=value`; none:
                every one that takes these items, with its defaults
    field       the field of the data, or `field:modality` to read it as another kind of data than it looks like; by
                default the one with the most to learn from
    items       at most so many items are taken through the round trip
    show        so many held-out items are shown piece by piece
    note        is told what is being done
    """
    if items < 1 or show < 0:
        raise ConfigError(f"items must be at least 1 and show at least 0, not {items} and {show}")
    note("reading the data")
    source = (data if isinstance(data, Source.Config) else recognise(data)).build()
    name, kind = _field(source, field)
    plain = find("modality", kind).Config().build()
    asked = [(spec, _modality(kind, spec)) for spec in tokenizers]
    drawn, facts = _draw(source, name, plain, items, seed)
    notes = list(source.notes)
    if not asked:
        asked, left_out = _fitting(
            kind, plain, [raw for whole in drawn.learn[:TRIED] for raw in plain.excerpts(whole, TRIED)][:TRIED]
        )
        notes += left_out
        if not asked:
            why = "no tokenizer takes them with its defaults; name one with its settings to see what it says"
            raise DataError(f"{source.config.path}: {name} ({kind}): {why}")
    measures, made = [], []
    for spec, modality in asked:
        note(f"{spec}: learning")
        began = time.perf_counter()
        try:
            modality.fit(drawn.learn)
        except ValueError as error:
            why = str(error).partition("\n")[0]
            raise DataError(f"{spec}: cannot learn from these items: {why}") from None
        seconds = time.perf_counter() - began
        note(f"{spec}: measuring")
        found = measure(spec, modality, drawn, seconds, seed)
        if not found.encoded and not any(encodes(modality, raw) for raw in drawn.every):
            why = f"refuses every item of {name} ({kind}), such as: {found.refused[0][0]}"
            raise DataError(f"{spec}: {why}; name none, and all that take these items are compared")
        measures.append(found)
        made.append(modality)
    shown = [raw for whole in drawn.held_out[:show] for raw in plain.excerpts(whole)]
    return Lab(str(source.config.path or ""), name, kind, facts, measures, made, shown, notes)


# Which tokenizers
def _modality(kind: str, spec: str) -> Modality:
    """The modality with the tokenizer that `spec` describes; ConfigError, one line."""
    named, _, settings = spec.partition(":")
    config: Any = find("tokenization", named).Config
    given: dict[str, Any] = {}
    for setting in filter(None, settings.split(";")):
        field, equals, value = setting.partition("=")
        if not equals:
            field, value = _first_number(config, spec), setting
        if field not in config.model_fields:
            raise ConfigError(f"{spec}: {named} has no field {field!r}{did_you_mean(field, config.model_fields)}")
        if field in given:
            raise ConfigError(f"{spec}: {field} is given twice")
        given[field] = notation.parse(value, spec)
    tokenizer = decode(config, given, spec)
    whole = decode(find("modality", kind).Config, {"tokenizer": tokenizer}, spec)
    axes, those = tokenizer.part(tokenizer).axes, whole.axes or whole.part.axes
    if axes != len(those):
        raise ConfigError(
            f"{spec}: does not take {kind}: it gives {axes} coordinate axes, and {kind} has {len(those)} "
            f"({', '.join(those) or 'none'}); name none, and all that take these items are compared"
        )
    return whole.build()


def _first_number(config: Any, spec: str) -> str:
    for name, field in config.model_fields.items():
        if field.annotation in (int, int | None):
            return name
    raise ConfigError(f"{spec}: {config.part.kind} has no whole number to set; write {config.part.kind} alone")


def _fitting(kind: str, plain: Modality, raws: list[Any]) -> tuple[list[tuple[str, Modality]], list[str]]:
    """Every tokenizer that takes these items (the modality's own first), and why others were left out."""
    first, found, left_out = str(plain.tokenizer.kind), [], []
    others = raws[1::2] or raws
    for name in sorted(kinds("tokenization"), key=lambda name: name != first):
        try:
            modality = _modality(kind, name)
            modality.fit(raws[::2])
            taken = sum(_takes(modality, raw) for raw in others)
            if 2 * taken >= len(others):
                found.append((name, _modality(kind, name)))
            else:
                left_out.append(name)
        except (SevenfoldError, ValueError):
            left_out.append(name)
    return found, [f"not compared, as they do not take these items by default: {', '.join(left_out)}"] * bool(left_out)


def _takes(modality: Modality, raw: Any) -> bool:
    """Whether it gives tokens, at least half of them known."""
    try:
        values = modality.tokenizer.encode(modality.check(raw)).values
    except ValueError:
        return False
    return len(values) > 0 and bool((values != modality.tokenizer.specials.get("unk", -1)).mean() >= 0.5)


# Which items
def _field(source: Source, asked: str | None) -> tuple[str, str]:
    """(field, kind of modality)."""
    known = {name: kind for name, kind in source.fields.items() if kind in kinds("modality")}
    if asked is not None:
        name, colon, kind = (asked, "", "") if asked in source.fields else asked.rpartition(":")
        if colon and kind not in kinds("modality"):
            raise ConfigError(f"{asked}: there is no modality {kind!r}{did_you_mean(kind, kinds('modality'))}")
        if name not in source.fields:
            wrong = name if colon else asked
            raise ConfigError(f"{source.config.path}: has no field {wrong!r}{did_you_mean(wrong, source.fields)}")
        return name, kind or source.fields[name]
    if not known:
        raise DataError(f"{source.config.path}: no modality takes its fields, {dict(source.fields)}")
    return max(known.items(), key=lambda pair: _worth(source, *pair))


def _worth(source: Source, name: str, kind: str) -> tuple[bool, float]:
    """Whether something is learned from such a field alone, and its bytes in a sample."""
    modality, raws, size = find("modality", kind).Config().build(), [], 0
    for index in range(0, len(source), max(1, len(source) // TRIED)):
        try:
            raw = source[index].get(name)
            if raw is not None:
                size += len(modality.content(raw))
                raws.append(raw)
        except (BadSample, ValueError):
            continue
    return bool(raws) and type(modality).suggest(name, raws, len(source)) is not None, float(size)


def _draw(source: Source, name: str, modality: Modality, items: int, seed: int) -> tuple[Data, dict[str, Any]]:
    """The items to learn from, to measure on, and to take there and back; and how many there were."""
    cache: dict[int, Any] = {}
    refused: dict[str, int] = {}

    def some(indices: Sequence[int], most: int, most_bytes: int) -> list[Any]:
        taken, size = [], 0
        for place in numpy_generator("lab", seed).permutation(len(indices)).tolist():
            index = indices[place]
            raw = cache[index] if index in cache else _read(source, index, name, modality, refused)
            cache[index] = raw
            if raw is not None:
                taken.append(index)
                size += len(modality.content(raw))
            if len(taken) >= most or size >= most_bytes:
                break
        return [cache[index] for index in sorted(taken)]

    train, held_out = source.split()
    measured = some(held_out or train, HELD_OUT_ITEMS, HELD_OUT_BYTES)
    every = some([*train, *held_out], items, ALL_BYTES)
    learn = some(train, LEARN_ITEMS, LEARN_BYTES)
    if not learn or not measured:
        why = "".join(f"; the first: {why}" for why in list(refused)[:1])
        raise DataError(f"{source.config.path}: holds no items of {name} that can be read{why}")
    content = b"".join(map(modality.content, measured))
    zipped = len(gzip.compress(content, 9, mtime=0))
    facts = {
        "items": len(source), "train": len(train), "held_out": len(held_out), "learned_from": len(learn),
        "measured_on": len(measured), "measured_bytes": len(content), "round_trip": len(every),
        "refused": [[why, count] for why, count in sorted(refused.items(), key=lambda pair: -pair[1])][:5],
        "gzip_bits_per_byte": 8 * zipped / max(1, len(content)),
    }  # fmt: skip
    return Data(learn, measured, every), facts


def _read(source: Source, index: int, name: str, modality: Modality, refused: dict[str, int]) -> Any:
    try:
        raw = source[index].get(name)
        return None if raw is None else modality.check(raw)
    except (BadSample, ValueError) as error:
        why = reason(error.why if isinstance(error, BadSample) else str(error))
        refused[why] = refused.get(why, 0) + 1
        return None
