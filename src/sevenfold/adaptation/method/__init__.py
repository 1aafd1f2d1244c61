"""Ways to make a trained model do something: read out, tuned, prompted, taken on to other data, adapted as it is asked.

The contract of this room. A method is told what is asked (`Asked`: a run or a published model, data, a target field) and leaves
a folder that `sf.load` reads, with a card; it gives the figures on held-out samples, what trivial methods reach beside them.
What trains by gradient does so by a recipe that begins from the model (`start`), in the one loop.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from sevenfold.core import part
from sevenfold.data.source import Source

Say = Callable[[str], None]
Figures = dict[str, dict[str, float]]
"""Name ("this model", then what it is compared with) → term → value, on held-out samples."""


class Asked(NamedTuple):
    """What is adapted to what.

    run      a run folder, a published folder, or the id of one
    data     the samples, of which a part is held out
    target   the field that is to be predicted; None: the only one that could be
    folder   where the result goes
    changes  `dotted.field=value` for the recipe, where one is trained
    say      is told what happens, a line each
    """

    run: str
    data: Source.Config
    target: str | None
    folder: Path
    changes: tuple[str, ...]
    say: Say


class Found(NamedTuple):
    """What came of it: figures, how many held-out samples they are over, and what else is worth keeping in adaptation.json."""

    figures: Figures
    samples: int
    more: dict[str, Any] = {}


class Method(part.Part):
    """A way to adapt."""

    room = "method"

    class Config(part.Config):
        pass

    answers: ClassVar[bool] = True
    """Whether `sevenfold predict` can ask the result."""
    example: ClassVar[dict[str, Any]] = {}
    """Small settings with which the conformance kit tries it: `start` (a kind of objective whose example is trained a few steps to
    begin from; `supervised` by default), and settings as a person would give them (`set`)."""

    def __init__(self, config: Any):
        self.config = config

    def run(self, asked: Asked) -> Found:
        """Do it, and write the folder (all but adaptation.json and the card). ConfigError, one line, for a run that does not have what the method needs;
        DataError for samples that cannot serve."""
        raise NotImplementedError

    def lines(self, found: Found) -> list[str]:
        """What else is said at the end, and stands in the card."""
        return []
