"""The text of one row as its tokens are drawn: no character is split, nothing of a stop string is ever shown.

A byte sequence that is not whole yet decodes to one replacement character at the very end, which is held back; so is the
longest end of the text that a stop string begins with. Tokens are decoded with some before them, as some tokenizers spell
a token by its neighbours; the pieces together are the text decoded at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sevenfold.modality import Modality

CONTEXT = 8
"""Tokens that are decoded again with new ones: more than any character has bytes."""
UNFINISHED = "\ufffd"


def writes(modality: Modality) -> bool:
    """Whether its items are text."""
    return isinstance(modality.example()[0], str)


class Told:
    """`hit` says that a stop string was met; `text` is all that was released."""

    def __init__(self, modality: Modality, before: Sequence[int] | np.ndarray, stop: Sequence[str] = ()):
        self.modality, self.stop = modality, tuple(stop)
        self.window = [int(id) for id in before[-CONTEXT:]]
        self.shown = len(self._decoded())
        self.held, self.text, self.hit = "", "", False

    def _decoded(self) -> str:
        return self.modality.raw(np.array(self.window, np.int64)) if self.window else ""

    def push(self, id: int) -> str:
        """One more token → the text that it releases."""
        self.window.append(id)
        text = self._decoded()
        whole = text.removesuffix(UNFINISHED)
        new = self.held + whole[self.shown :]
        self.shown = max(self.shown, len(whole))
        if whole == text and len(self.window) > 2 * CONTEXT:
            self.window = self.window[-CONTEXT:]
            self.shown = len(self._decoded())
        return self._released(new)

    def _released(self, new: str) -> str:
        found = [place for place in map(new.find, self.stop) if place >= 0]
        if found:
            self.hit, self.held, new = True, "", new[: min(found)]
        else:
            keep = max((begun(new, stop) for stop in self.stop), default=0)
            new, self.held = new[: len(new) - keep], new[len(new) - keep :]
        self.text += new
        return new

    def flush(self) -> str:
        """What was held back, when nothing more comes."""
        rest = "" if self.hit else self.held + self._decoded()[self.shown :]
        self.held, self.window = "", []
        self.text += rest
        return rest


def begun(text: str, stop: str) -> int:
    """How many characters at the end of the text are the beginning of a stop string (but not all of it)."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
