"""Documents cut into consecutive pieces, so that a book or a genome has samples by number; and its end held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sevenfold.data.source._files import Bytes

FEW = 50
"""With fewer documents than this, the end of the data is held out instead of some of the documents."""


class Piece(NamedTuple):
    """Bytes start…stop of a document."""

    document: int
    start: int
    stop: int


Cut = Callable[[Any, int, int], int]
"""(document, low, high) → the last place in low…high where the document may be cut; low if there is none."""


def pieces_of(documents: Sequence[Bytes], size: int, cut: Cut, limit: int | None) -> list[Piece]:
    """Pieces of at most `size` bytes, in order; the first `limit` of them."""
    pieces: list[Piece] = []
    for number, document in enumerate(documents):
        start = 0
        while start < len(document):
            if limit is not None and len(pieces) == limit:
                return pieces
            whole = len(document) - start <= size
            stop = len(document) if whole else cut(document, start, start + size)
            stop = stop if stop > start else start + size
            pieces.append(Piece(number, start, stop))
            start = stop
    return pieces[:limit]


def hold_out_end(
    pieces: list[Piece], documents: Sequence[Bytes], cut: Cut, share: float, limit: int | None
) -> tuple[list[Piece], int]:
    """The pieces, one of them cut in two where the last `share` of all bytes begins; and the number of the first
    piece that is held out. Neither side is empty if there are two bytes."""
    if limit is not None and len(pieces) == limit:
        if limit == 1:
            return pieces, 1
        pieces = pieces[:-1]
    left = max(1, int(sum(piece.stop - piece.start for piece in pieces) * (1 - share)))
    for number, piece in enumerate(pieces):
        length = piece.stop - piece.start
        if left < length or number == len(pieces) - 1:
            place = cut(documents[piece.document], piece.start, min(piece.start + left, piece.stop - 1))
            if not piece.start < place < piece.stop:
                return pieces, max(1, number)
            halves = [Piece(piece.document, piece.start, place), Piece(piece.document, place, piece.stop)]
            return [*pieces[:number], *halves, *pieces[number + 1 :]], number + 1
        left -= length
        if left == 0:
            return pieces, number + 1
    return pieces, len(pieces)
