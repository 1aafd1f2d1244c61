"""An item piece by piece in a terminal: in colour there, between bars in a file or a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sevenfold.modality import Modality

PIECES, WIDE = 48, 300
"""The most pieces of one item, and characters of all together."""
COLOURS = (153, 223, 157, 218, 229, 189, 123, 215)
"""Light ones of the 256, under black letters."""


def show(name: str, modality: Modality, raw: Any) -> None:
    """Print the tokens of one item, each with its id."""
    from sevenfold.blocks.tokenization._text import printable

    tokenizer = modality.tokenizer
    try:
        values = tokenizer.encode(raw).values
    except ValueError as error:
        print(f"  {name}: refused: {error}")
        return
    title = f"  {name} ({len(values):,}):"
    if values.ndim == 2:
        first = ", ".join(f"{number:.2f}" for number in values[0][:8].tolist())
        print(f"{title} vectors of {values.shape[1]:,}; the first begins {first}")
        return
    spans = tokenizer.spans(raw)
    pieces: list[str] = []
    written = 0
    for place, id in enumerate(values[:PIECES].tolist()):
        text = tokenizer.piece(id)
        if spans is not None and isinstance(raw, str):
            text = printable(raw[spans[place, 0] : spans[place, 1]])
        written += len(text) + len(str(id)) + 2
        if written > WIDE:
            break
        pieces.append(_coloured(text, id) if sys.stdout.isatty() else f"{text}·{id}")
    more = f" … {len(values) - len(pieces):,} more" if len(values) > len(pieces) else ""
    print(f"{title} {(' ' if sys.stdout.isatty() else '|').join(pieces)}{more}")


def _coloured(text: str, id: int) -> str:
    return f"\x1b[30;48;5;{COLOURS[id % len(COLOURS)]}m{text}\x1b[0m\x1b[2m{id}\x1b[0m"
