"""A modality: one record that says how one kind of data becomes a stream, and how it is shown to a person.

tokenizer + projection + coordinate axes + which raw items it takes + an example. One file each; a recipe's `streams`
are modalities with names:

    streams:
      text: {kind: text, tokenizer: {kind: bpe, size: 4096}}
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from sevenfold.blocks.projection import Projection
from sevenfold.blocks.tokenization import Tokenizer, check_ready
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens
from sevenfold.data.view import View
from sevenfold.modality._features import Features, Shingles, token_counts

EXCERPT = 240
"""Characters of an excerpt: a multiple of 1 to 6 and 8, so that words of k letters come out even."""


class Suggestion(NamedTuple):
    """How to learn from items of one modality when nobody says how: pieces of a recipe, as plain data, without sizes.

    stream     settings of the stream
    trunks     name → settings, but for width and depth; the first is the main one, later ones are light
    objective  what is learned
    train      the batch, in items or tokens
    tokens     about how many tokens an item makes
    why        a reason a line
    tower      settings of a trunk that stands beside another modality's in contrast; None: it learns alone
    """

    stream: dict[str, Any]
    trunks: dict[str, dict[str, Any]]
    objective: dict[str, Any]
    train: dict[str, Any]
    tokens: float
    why: list[str]
    tower: dict[str, Any] | None = None


class Augmentation(NamedTuple):
    """Views of a modality, as plain data, for learning from several looks at an item. None at all is one too: the looks then
    differ by the dropout of the model alone.

    whole   what keeps an item what it is: the two views of SimCLR, the global crops of DINO
    part    a small piece of it: the local crops of DINO
    """

    whole: tuple[Any, ...] = ()
    part: tuple[Any, ...] = ()


class Modality(part.Part):
    """One kind of data. Its Config is what a recipe writes under `streams`."""

    room = "modality"

    class Config(part.Config):
        tokenizer: Tokenizer.Config = part.default("bytes")
        """How raw items become tokens."""
        field: str | None = None
        """Which field of a sample holds the raw item; by default the one with the stream's name, or else the only
        one of this modality."""
        length: int | None = Field(None, ge=1)
        """The most tokens of one item, ends included; longer ones are cut. By default what the data has."""
        ends: bool = False
        """Whether a begin and an end token are put around an item (the tokenizer must have them)."""
        closed: bool = False
        """Whether an item that is cut to `length` still has its end token behind it (BERT, CLIP); without, it is cut off."""
        begin: int | None = Field(None, ge=0)
        """An id that stands in front of every item, before what ends put there (T5 begins what it writes with padding)."""
        pack: bool | Literal["whole"] | None = None
        """Lay items end to end and cut windows of `length` tokens, instead of padding; by default so for the only stream of
        ids in a line. `whole`: as many items in each row of `length` tokens as fit, none of them cut that would fit alone."""
        projection: Projection.Config | None = None
        """How tokens become vectors of the model's width; by default `embedding` for ids, `patch_embed` for vectors."""
        table: str | None = None
        """A stream with the same ids, read by an earlier trunk, whose embedding this one has too (T5)."""
        axes: tuple[str, ...] | None = None
        """Names of the coordinate axes. Streams in one trunk share an axis exactly when they use the same name; by
        default every modality has its own."""
        views: tuple[View.Config, ...] = ()
        """Random changes made to a raw training item, in this order."""

    axes: ClassVar[tuple[str, ...]] = ()
    """Default names of the coordinate axes, as many as the tokenizer's coordinates have columns."""
    task: ClassVar[Literal["classes", "numbers", "labels", "tokens"] | None] = None
    """What it is to predict an item of this kind: one of some classes, numbers, or any of some labels, a class for each token of
    another stream; None: it is no target."""

    def __init__(self, config: Any):
        self.config = config
        self.tokenizer: Tokenizer = config.tokenizer.build()
        self.views = [view.build() for view in config.views]
        self.axis_names: tuple[str, ...] = config.axes or self.axes
        if len(self.axis_names) != self.tokenizer.axes:
            raise ConfigError(
                f"{self.kind}: the {self.tokenizer.kind} tokenizer gives {self.tokenizer.axes} coordinate axes, "
                f"but axes names {len(self.axis_names)}: {list(self.axis_names)}"
            )

    # What it takes
    def check(self, raw: Any) -> Any:
        """The raw item in the form that the tokenizer takes (a str, an array); ValueError, one line, if it is none."""
        raise NotImplementedError

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[Any]:
        """At least 8 small raw items, different for each seed: by default those of its default tokenizer."""
        return part.decode(cls.Config, {}).tokenizer.part.example(seed)

    @classmethod
    def suggest(cls, name: str, raws: Sequence[Any], items: int) -> Suggestion | None:
        """How `pretrain` learns from a stream called `name`, given some raw items and how many there are in all; None:
        not from this modality alone (a label, a number)."""
        return None

    def augmentation(self) -> Augmentation:
        """The changes that keep what an item of this kind is, for objectives that compare several looks at one."""
        return Augmentation()

    def within(self, raw: Any) -> Any:
        """A checked item that views have changed, brought back into the range that its kind has (a sound is in -1…1)."""
        return raw

    # What it does
    def fit(self, raws: Iterable[Any]) -> None:
        """Let the tokenizer learn from training items, unless it is ready."""
        if not self.tokenizer.ready:
            self.tokenizer.fit([self.prepared(self.check(raw)) for raw in raws])

    def remarks(self, raws: Sequence[Any]) -> list[str]:
        """What a person should know about the training items that its tokenizer learned from, a line each: a class with one
        of them, numbers that are all equal."""
        return []

    def prepared(self, raw: Any) -> Any:
        """A checked item as the tokenizer gets it: as it is, unless all items are brought to one form (one size)."""
        return raw

    def tokens(self, raw: Any, generator: np.random.Generator | None = None, cut: bool = True) -> Tokens:
        """One raw item as Tokens: views (only with a generator, so in training), what `prepared` does, tokenizer, ends, cut
        to length (unless items are laid end to end)."""
        return self._encoded(self._viewed(raw, generator), cut)

    def look(
        self, raw: Any, generator: np.random.Generator | None, draw: np.random.Generator, views: Sequence[View] = ()
    ) -> Tokens:
        """One raw item as Tokens, changed by `views` too, after its own: those with `draw`, its own as in `tokens`."""
        return self._encoded(self.changed(self._viewed(raw, generator), views, draw), True)

    def _viewed(self, raw: Any, generator: np.random.Generator | None) -> Any:
        check_ready(self.tokenizer)
        raw = self.check(raw)
        return raw if generator is None else self.changed(raw, self.views, generator)

    def changed(self, raw: Any, views: Sequence[View], draw: np.random.Generator) -> Any:
        """A raw item that `check` has let through, changed by views and within what its kind may be."""
        for view in views:
            raw = view(raw, draw)
        return self.within(raw) if views else raw

    def _encoded(self, raw: Any, cut: bool) -> Tokens:
        tokens = self.tokenizer.encode(self.prepared(raw))
        length = self.config.length if cut else None
        if self.config.ends or self.config.begin is not None:
            around = sum(map(len, self.around())) if self.config.closed else 0
            tokens = self.ended(tokens if length is None or not around else tokens.slice(0, max(0, length - around)))
        return tokens if length is None else tokens.slice(0, length)

    def around(self) -> tuple[list[int], list[int]]:
        """The ids that stand before and behind a whole item in this stream."""
        before, behind = self.tokenizer.around() if self.config.ends else ([], [])
        return [*([] if self.config.begin is None else [self.config.begin]), *before], behind

    def ended(self, tokens: Tokens) -> Tokens:
        """With the ids around them that stand there in this stream."""
        before, behind = self.around()
        if not (before or behind) or self.tokenizer.axes != 1:
            raise ConfigError(f"the {self.tokenizer.kind} tokenizer has no begin and end tokens: set ends to false")
        if self.config.begin is not None and self.config.begin >= (self.tokenizer.size or 0):
            raise ConfigError(
                f"begin: {self.config.begin} is none of the {self.tokenizer.size or 0} ids of the tokenizer"
            )
        values = np.concatenate([before, tokens.values, behind]).astype(np.int64)
        return Tokens(values, np.arange(len(values), dtype=np.int64)[:, None])

    def raw(self, values: np.ndarray, coords: np.ndarray | None = None) -> Any:
        """The raw item back from tokens."""
        return self.tokenizer.decode(np.asarray(values), coords)

    # How its tokenizers are measured (sevenfold tokens)
    def edits(self, raw: Any, draw: np.random.Generator) -> dict[str, Any]:
        """The raw item with one small change, in each way that should change few tokens: what was done → the item. Where
        the change moves tokens without altering them (a reverse complement, a reordering), the name says so."""
        return {}

    def excerpts(self, raw: Any, most: int = 1) -> list[Any]:
        """Up to `most` pieces of the raw item, evenly spread, each short enough to be shown and to be changed many
        times: 240 characters of a str; the item itself if it is something else."""
        if not isinstance(raw, str) or len(raw) <= EXCERPT:
            return [raw]
        count = min(most, len(raw) // EXCERPT)
        return [raw[i * len(raw) // count :][:EXCERPT] for i in range(count)]

    def content(self, raw: Any) -> bytes:
        """The raw item as plain bytes, uncompressed: what tokens are counted against, and what gzip is given."""
        raw = self.check(raw)
        return raw.tobytes() if isinstance(raw, np.ndarray) else str(raw).encode("utf-8", "replace")

    def units(self, raw: Any) -> np.ndarray | None:
        """Where semantic units begin and end in the raw item, [k 2] in the measure of `Tokenizer.spans` (words, codons,
        atoms), in order and without overlap; what is between them (spaces, bonds) belongs to none. None where nobody
        knows."""
        return None

    unit: ClassVar[str] = "semantic units"

    def error(self, raw: Any, back: Any) -> float:
        """How far a decoded item is from the raw one, in `error_unit`: by default the share of items that differ."""
        return float(not np.array_equal(np.asarray(raw), np.asarray(back)))

    error_unit: ClassVar[str] = "share that differs"

    # How models of it are measured (sevenfold evaluate)
    def features(self, train: Sequence[Any]) -> tuple[Features, ...]:
        """Raw features of checked items for simple methods, each kind apart, with columns learned from training items: by default
        how often each id of the tokenizer occurs, or mean and deviation of its vectors."""
        return (token_counts(self, train),)

    def shingles(self, raw: Any) -> Shingles | None:
        """The pieces by which near duplicates of a checked item are found; None: by the distance of raw features."""
        return None

    # How it is shown
    def summary(self, raws: Sequence[Any]) -> dict[str, Any]:
        """Facts about raw items, name → printable value: lengths, alphabet, sizes."""
        return {}

    def html(self, raw: Any) -> str:
        """One raw item as a self-contained piece of HTML."""
        return f"<code>{escape(str(raw))}</code>"

    def plain(self, raw: Any) -> str:
        """One raw item as text for a terminal."""
        return str(raw)

    def typed(self, text: str) -> Any:
        """The raw item that a person means by typing `text`: the text itself, or the file of that name. ValueError, one
        line, if it is none."""
        return self.check(text)

    def file(self, raw: Any) -> tuple[str, bytes]:
        """One raw item as a file: (ending, content)."""
        return ".txt", f"{raw}\n".encode("utf-8", "replace")

    # Files
    def save(self, folder: str | Path) -> list[str]:
        """Write the tokenizer's files; returns their names."""
        return self.tokenizer.save(folder)

    def restore(self, folder: str | Path) -> None:
        """Read the tokenizer's files."""
        self.tokenizer.restore(Path(folder))


def check_views(views: Sequence[View], modality: Modality, where: str) -> None:
    """ConfigError, before any data is read, for a view that cannot be made of items of the modality."""
    kinds = {getattr(base, "kind", None) for base in type(modality).__mro__}
    for view in views:
        if view.modalities and not kinds.intersection(view.modalities):
            told = ", ".join(view.modalities[:-2] + (" and ".join(view.modalities[-2:]),))
            raise ConfigError(
                f"{where}: {view.kind} changes items of {told}, not of {modality.kind}: take it out of views"
            )
    raw = modality.check(modality.example()[0])
    for view in views:
        try:
            raw = modality.check(modality.within(view(raw, numpy_generator("views"))))
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        except ValueError:  # an example may be too small for it, items of the data need not be
            return
