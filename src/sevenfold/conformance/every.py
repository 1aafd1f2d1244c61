"""What holds in every room: the file, its header, and the config."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sevenfold.conformance._kit import Skipped, expect, refusal
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import Config, decode, encode, find
from sevenfold.core.rooms import ROOMS, header

SOURCE = re.compile(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d+/\S+|\b(1[89]|20)\d\d\b|\bOurs\b|[\w-]+\.(com|io|org)/\S+")
"""A preprint, a DOI, the year of a publication, an address, or the word that it is ours."""


def check_header(config: Any) -> None:
    """The file says what it is; in the seven rooms of blocks, also from where."""
    told = header(config.part.room, config.kind)
    expect(told.strip(), "the file has no docstring")
    if ROOMS[config.part.room].startswith("sevenfold.blocks."):
        expect(SOURCE.search(told), "the header names no source (arXiv:…, doi:…, an author and year, or an address)")


def check_one_part(config: Any) -> None:
    """The file holds one part, found by its name."""
    expect(find(config.part.room, config.kind) is config.part, f"{config.kind!r} finds another part")


def check_file_length(config: Any) -> None:
    """The file can be read in one sitting: at most 300 lines."""
    lines = len(Path(inspect.getfile(config.part)).read_text(encoding="utf-8").splitlines())
    expect(lines <= 300, f"the file has {lines} lines")


def check_fields_described(config: Any) -> None:
    """Every field has a docstring, which is its help."""
    for name, field in type(config).model_fields.items():
        expect(field.description, f"the field {name!r} has no docstring")


def check_round_trip(config: Any) -> None:
    """decode(encode(config)) == config, by the part's own Config and by its contract's."""
    data = encode(config)
    expect(data["kind"] == config.kind, f"encodes as kind {data['kind']!r}")
    expect(decode(type(config), data) == config, "decode(encode(config)) differs")
    expect(decode(_contract(config), data) == config, "decode(encode(config)) by the contract differs")


def check_frozen(config: Any) -> None:
    """A config cannot be changed."""
    name = next(iter(type(config).model_fields), None)
    if name is None:
        raise Skipped("it has no fields")
    try:
        setattr(config, name, getattr(config, name))
    except ValidationError:
        return
    expect(False, f"the field {name!r} can be changed")


def check_unknown_field(config: Any) -> None:
    """An unknown field is an error with its dotted path and the name that was meant."""
    outer: Any = type("Outer", (Config,), {"__annotations__": {"place": _contract(config)}, "__module__": __name__})
    known = next(iter(type(config).model_fields), None)
    wrong = f"{known}x" if known else "widht"
    message = refusal(lambda: decode(outer, {"place": {**encode(config), wrong: 1}}), ConfigError)
    expect(f"place.{wrong}" in message, f"the error does not name the path place.{wrong}: {message}")
    expect(known is None or f"did you mean {known!r}" in message, f"the error does not say what was meant: {message}")


def _contract(config: Any) -> Any:
    """The Config of the room's contract, which accepts every part of the room."""
    return next(base for base in config.part.__mro__ if "room" in vars(base)).Config
