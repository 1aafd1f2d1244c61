"""What an evaluation is asked for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sevenfold.core import part
from sevenfold.evaluation.metric import Metric


class Asked(part.Config):
    """The settings of `sf.evaluate`, and the options of `sevenfold evaluate`."""

    target: str | None = None
    """The field to tell from the representation: a label, a number, labels, or a letter for each token. By default what the run
    says by itself (a supervised or adapted one); where it says nothing, the loss is measured."""
    target_kind: Literal["label", "number", "labels", "token_labels"] | None = None
    """What the target is, where its field does not tell: labels are several, as in `red;round`."""
    by: Literal["probe", "knn", "head", "drawn", "loss"] | None = None
    """probe: a linear read-out of the frozen representation, its strength chosen on training items; knn: 20 weighted nearest
    neighbours; head: what the model says by itself (its head, or what it was adapted with; the default where it does); drawn:
    what it draws of the target is read by an independent classifier; loss: the objective itself, also of a run that has a head."""
    metric: tuple[Metric.Config, ...] = ()
    """Metrics instead of the usual ones; the sentence is about the first."""
    streams: tuple[str, ...] = ()
    """What the model is given (by default all that it reads but the target)."""
    stream: str | None = None
    """What it draws, with by: drawn."""
    guidance: float = Field(1.0, ge=0)
    """How strongly what is drawn follows the target, with by: drawn."""
    temperature: float = Field(1.0, ge=0)
    """The temperature of drawing, with by: drawn."""
    trunk: str | None = None
    """Whose representation is read (by default the last trunk that reads streams)."""
    pool: str = "mean"
    """How its tokens become one vector: mean, class, last, class_mean."""
    group: str | None = None
    """A field whose equal values belong together (a speaker, a patient): resampling draws whole groups."""
    split: str | None = None
    """The field of DATA that says train, valid or test."""
    most: int = Field(10_000, ge=2)
    """At most so many training items for the read-out and the baselines, drawn by the seed."""
    per_class: int | None = Field(None, ge=1)
    """At most so many labels of each class."""
    drawing: Literal["pca", "umap"] = "pca"
    """How the representations are drawn on a plane."""
    note: tuple[str, ...] = ()
    """What a reader of the card must know."""
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """What the files are called; by default by target and means."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of everything random here."""
