"""Where the data are tokens already: the stream that reads them is theirs, and a recipe need not say how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import find
from sevenfold.data.source import Source
from sevenfold.modality import Modality
from sevenfold.training.wiring import merged


def with_streams(data: dict[str, Any]) -> dict[str, Any]:
    """A recipe's plain data with what its data say of the stream that reads them, changed as it says."""
    settings = data.get("data")
    if not isinstance(settings, dict) or not isinstance(settings.get("kind"), str):
        return data
    streams = data.get("streams") or {}
    if not isinstance(streams, dict) or streams and all(isinstance(s, dict) and "kind" in s for s in streams.values()):
        return data  # all is said; the data may be gone
    try:
        source = find("source", settings["kind"])
    except (ConfigError, ImportError):
        return data  # said with its place when the recipe is decoded
    told = source.told(settings)
    if told is None:
        return data
    streams = streams or {told.field: {}}
    reading = [name for name, given in streams.items() if _field(name, given) == told.field] or list(streams)[:1]
    return {**data, "streams": {**streams, reading[0]: merged(told.stream, streams[reading[0]])}}


def _field(name: str, given: Any) -> Any:
    return given.get("field") or name if isinstance(given, dict) else name


def already(source: Source, streams: Mapping[str, Modality.Config], fields: Mapping[str, str]) -> str | None:
    """The stream whose tokens the source holds, if it does; ConfigError if the stream would have made others."""
    held = source.prepared
    if held is None:
        return None
    name = next(name for name, field in fields.items() if field == held.field)
    given = part.encode(streams[name])
    for field, value in held.stream.items():
        if given.get(field) != value:
            raise ConfigError(
                f"streams.{name}.{field}: the tokens of {_whose(source)} were made with {value!r}, not {given.get(field)!r}: "
                "leave it out, or prepare the data again"
            )
    if streams[name].views and streams[name].pack:
        raise ConfigError(f"streams.{name}.views: {_whose(source)} holds tokens, and views change raw items")
    return name


def _whose(source: Source) -> str:
    return source.config.path or f"the {source.kind}"
