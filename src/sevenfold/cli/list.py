"""What there is: every part of every room, one line each.

sevenfold list
sevenfold list mixing
sevenfold list --markdown > catalogue.md

A part's line is the first line of its file. Parts of other installed packages are listed too.
"""

from __future__ import annotations

import argparse

from sevenfold.core.rooms import ROOMS, folder, header, kinds, room_header


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("room", nargs="?", help="only this room")
    parser.add_argument("--markdown", action="store_true", help="the whole catalogue: what each file says of its part")
    parser.add_argument("--fields", action="store_true", help="the settings of each part too (imports them)")


def run(args: argparse.Namespace) -> int:
    rooms = [args.room] if args.room else list(ROOMS)
    for room in rooms:
        folder(room)
    if args.markdown:
        print("\n".join(line for room in rooms for line in _page(room, args.fields)))
    else:
        print("\n".join(line for room in rooms for line in _lines(room, args.fields)))
    return 0


def _lines(room: str, fields: bool) -> list[str]:
    lines = [f"{room}: {_first(room_header(room))}"]
    for kind in kinds(room):
        lines.append(f"  {kind:<20} {_first(header(room, kind))}")
        if fields:
            lines += [f"    {name}: {default:<12} {told}" for name, default, told in _fields(room, kind)]
    return [*lines, ""]


def _page(room: str, fields: bool) -> list[str]:
    lines = [f"## {room}", "", *_prose(room_header(room)), ""]
    for kind in kinds(room):
        lines += [f"### `{kind}`", "", *_prose(header(room, kind)), ""]
        if fields and (rows := _fields(room, kind)):
            lines += ["| field | default | |", "|---|---|---|"]
            lines += [
                f"| `{name}` | `{default}` | {told.replace('|', chr(92) + '|')} |" for name, default, told in rows
            ]
            lines.append("")
    return lines


def _prose(text: str) -> list[str]:
    """A docstring as Markdown: what is indented (equations, examples) becomes a code block."""
    lines: list[str] = []
    inside = False
    for line in [*text.splitlines(), ""]:
        indented = line.startswith("    ")
        if indented and not inside:
            lines.append("```text")
        if inside and not indented and (line or lines[-1] != ""):
            lines.append("```")
        inside = indented
        lines.append(line[4:] if indented else line)
    return lines[:-1]


def _first(text: str) -> str:
    return text.splitlines()[0] if text else ""


def _fields(room: str, kind: str) -> list[tuple[str, str, str]]:
    """(name, default, docstring) of each setting of a part."""
    from sevenfold.core.part import encode, find

    rows = []
    for name, field in find(room, kind).Config.model_fields.items():
        default = "(needed)" if field.is_required() else str(encode(field.get_default(call_default_factory=True)))
        rows.append((name, default, " ".join((field.description or "").split())))
    return rows
