"""`sf.evaluate`: one card for one run, for several seeds of one recipe, or for a published model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sevenfold.adaptation._folder import RECORD
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode
from sevenfold.evaluation import agreement, losses, readouts
from sevenfold.evaluation.asked import Asked
from sevenfold.evaluation.card import FOLDER, Card
from sevenfold.evaluation.parts import Data
from sevenfold.evaluation.reading import own_target
from sevenfold.training.load import located


def evaluate(
    runs: str | Path | Sequence[str | Path],
    data: Data | None = None,
    *,
    out: str | Path | None = None,
    **settings: Any,
) -> Card:
    """Measure a model, and write the card.

    runs      a run folder, several (seeds of one recipe), a published folder, or the id of one
    data      a file or folder, the kind of a source that needs none (`digits`), or a source's settings; by default the run's own data
    out       where NAME.json and NAME.html go; by default the folder `evaluation` of the (first) run, whose report gets the table
              too. Nothing is written for a published model unless it is said
    settings  see `sevenfold.evaluation.asked.Asked`: target="label" tells a field from the representation, by="loss" measures the
              loss of a run that would be asked for its label

    Raises ConfigError, DataError, CheckpointError, one line each.
    """
    names = [str(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    if not names:
        raise ConfigError("name a run, a published folder, or the id of one")
    asked = decode(Asked, settings, "evaluate")
    if asked.by == "loss" and asked.target is not None:
        raise ConfigError("by: the loss is that of the whole objective: leave the target out")
    if asked.target is None and asked.by is None:
        own = any((located(names[0]) / name).is_file() for name in ("recipe.yaml", RECORD))
        asked = asked.replace(target=own_target(names[0])) if own else asked
    elif asked.target is None and asked.by != "loss":
        raise ConfigError(f"by: {asked.by} tells a target: name its field (--target)")
    if asked.split is not None and data is None:
        raise ConfigError(
            f"split: says the parts of other data: name the file too (those of a run's own data are in its recipe, data.split: {asked.split})"
        )
    made = losses if asked.target is None else agreement if asked.by == "drawn" else readouts
    card = made.card(names, data, asked)
    folder = located(names[0])
    ours = (folder / "recipe.yaml").is_file()
    if out is not None:
        return card.written(out)
    return card.written(folder / FOLDER, folder / "report.html") if ours else card
